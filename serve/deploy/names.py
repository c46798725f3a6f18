"""The names that go into manifests and compose files, checked before a cluster reads them."""

import re
from enum import Enum
from pathlib import PurePosixPath

from nemotrt.errors import ConfigError


class NameForm(Enum):
    """What a name may be, and how that is said.

    Source: Kubernetes documentation, "Object Names and IDs", "Labels and Selectors"; the compose
    specification, "services"; the OCI distribution specification (references have no space).
    """

    LABEL = (r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "lower-case letters, digits and '-'")
    SUBDOMAIN = (r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", "lower-case letters, digits, '-' and '.'")
    VALUE = (r"[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?", "letters, digits, '-', '_' and '.'")
    SERVICE = (r"[A-Za-z0-9][-A-Za-z0-9._]*", "letters, digits, '-', '_' and '.'")
    IMAGE = (r"[A-Za-z0-9][-A-Za-z0-9._/:@]*", "letters, digits and '-._/:@'")


def check_name(what: str, name: str, form: NameForm) -> None:
    """Raise ConfigError unless `name` has the form; it must begin with a letter or digit."""
    pattern, text = form.value
    if not re.fullmatch(pattern, name, re.ASCII):
        raise ConfigError(f"{what} {name!r} must begin with a letter or digit and have {text}.")


def check_sub_path(what: str, path: str) -> None:
    """Raise ConfigError unless `path` lies inside a volume."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ConfigError(f"{what} {path!r} must be a path inside the claim, without '..'.")
