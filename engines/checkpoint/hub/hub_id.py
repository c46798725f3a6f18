"""OWNER/NAME[@REVISION]: a repository of the hub as users write it."""

import re
from dataclasses import dataclass

from nemotrt.errors import ConfigError

MAIN = "main"  # the hub's default branch
FORM = "OWNER/NAME or OWNER/NAME@REVISION, such as nvidia/NVIDIA-Nemotron-Nano-9B-v2"
MAX_NAME_CHARACTERS = 96
# Source: huggingface_hub 2.4, utils/_validators.py, which also forbids "--", ".." and ".git".
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
COMMIT = re.compile(r"[0-9a-f]{40}")
# What git takes for a branch or a tag, and never a way out of a folder.
REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_+-]|[./](?=[A-Za-z0-9_-]))*")


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository, and the branch, tag or commit of it that is meant."""

    repository: str
    revision: str = MAIN

    def __str__(self) -> str:
        """Return it as a user writes it."""
        return self.repository if self.revision == MAIN else f"{self.repository}@{self.revision}"


def is_commit(text: str) -> bool:
    """Whether `text` is the full hash of a commit."""
    return COMMIT.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether `text` is a repository's name, with its owner or (as the oldest are) without."""
    parts = text.split("/")
    is_spelt = all(NAME.fullmatch(part) and len(part) <= MAX_NAME_CHARACTERS for part in parts)
    return is_spelt and len(parts) <= 2 and not re.search(r"--|\.\.|\.git$", text)


def split_revision(name: str) -> tuple[str, str]:
    """Return what stands before the first "@", and the revision after it; "main" without one.

    Raises:
        ConfigError: the revision is none that git would take.
    """
    before, at, revision = name.partition("@")
    if not at:
        return name, MAIN
    if not REVISION.fullmatch(revision) or revision.endswith((".lock", "/")):
        raise ConfigError(
            f"{name!r}: {revision!r} is no revision; give a branch, a tag or a commit after the @."
        )
    return before, revision


def parse_hub_id(name: str) -> HubId | None:
    """Return the repository that `name` may mean, None where it does not have the form of one.

    Raises:
        ConfigError: it has the form, but the revision is none.
    """
    repository = name.partition("@")[0]
    if "/" not in repository or not is_repository(repository):
        return None
    return HubId(*split_revision(name))
