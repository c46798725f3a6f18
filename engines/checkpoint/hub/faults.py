"""The hub's faults, each as a line with its cure; no token and no address with secrets is in it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from nemotrt.engines.checkpoint.hub.hub_id import HubId
from nemotrt.errors import ConfigError, EnvironmentUnfitError, NemotrtError

PUBLIC = "https://huggingface.co"


def endpoint() -> str:
    """Return the hub's address: $HF_ENDPOINT, or the public one.

    Raises:
        ConfigError: the variable holds no address.
    """
    told = os.environ.get("HF_ENDPOINT") or PUBLIC
    try:
        parts = urlsplit(told)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_address = is_address and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:  # no port, or no IPv6 address
        is_address = False
    if not is_address or any(c.isspace() or not c.isprintable() for c in told):
        shown = "" if "@" in told else f"={told[:80]!r}"  # it may hold a password
        raise ConfigError(
            f"HF_ENDPOINT{shown} is no address of a hub: give one such as {PUBLIC}, or unset it."
        )
    return told.rstrip("/")


@contextmanager
def told_faults(hub_id: HubId) -> Iterator[None]:
    """Say in one line what the hub's client raises in the block."""
    from huggingface_hub import errors

    try:
        yield
    except NemotrtError:
        raise
    except errors.HfHubHTTPError as error:
        raise _refusal(error, hub_id) from None
    except (errors.HTTPError, errors.OfflineModeIsEnabled, errors.EntryNotFoundError) as error:
        raise _unreachable(error, hub_id) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if error.errno is None:  # the client's own: a file came short
            raise _unreachable(error, hub_id) from None
        raise EnvironmentUnfitError(
            f"{hub_id}: the hub's cache can't be written: {error.strerror}: {error.filename}; "
            "set HF_HOME to a folder of yours."
        ) from error


def _refusal(error: Exception, hub_id: HubId) -> NemotrtError:
    """Return what an answer of the hub means that is no success."""
    from huggingface_hub import errors

    name, host = hub_id.repository, urlsplit(endpoint()).hostname
    if isinstance(error, errors.GatedRepoError):
        return EnvironmentUnfitError(
            f"{name} is gated: accept its terms on its page at {host}, then set HF_TOKEN to a "
            "token of your account that may read it."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ConfigError(
            f"{name} is no folder here and no repository that {host} shows; check the spelling. "
            "A private one needs HF_TOKEN; a path begins with ./ or /."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ConfigError(
            f"{name} has no revision {hub_id.revision!r}; give one of its branches, tags or "
            "commits (40 hexadecimal digits)."
        )
    code = getattr(getattr(error, "response", None), "status_code", None)
    if code in (401, 403):
        return EnvironmentUnfitError(
            f"{host} refuses {name} with {code}: set HF_TOKEN to a valid token that may read it."
        )
    return EnvironmentUnfitError(f"{host} answers {code} for {hub_id}; try again later.")


def _unreachable(error: Exception, hub_id: HubId) -> NemotrtError:
    """Return the error for a hub that does not answer, or not to the end."""
    host = urlsplit(endpoint()).hostname
    cause = error.__cause__ or error
    return EnvironmentUnfitError(
        f"{hub_id} can't be downloaded: {host} does not answer or broke off "
        f"({type(cause).__name__}). The same command goes on from there; check the network and "
        "HTTPS_PROXY. --offline takes what the cache has."
    )
