"""The local cache of the hub: `models--OWNER--NAME/snapshots/COMMIT`, and refs that name commits.

Source of the layout and of the variables: huggingface_hub 2.4, constants.py and the guide
"Understand caching"; every Hugging Face library shares it.
"""

import os
from pathlib import Path

from nemotrt.engines.checkpoint.hub.hub_id import MAIN, HubId, is_commit, is_repository
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError

OFFLINE = "HF_HUB_OFFLINE"
TRUE = ("1", "ON", "YES", "TRUE")
PREFIX = "models--"


def is_offline() -> bool:
    """Whether the user has forbidden the network: --offline sets the same variable."""
    told = os.environ.get(OFFLINE) or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return told.upper() in TRUE


def hub_cache() -> Path:
    """Return the folder of the cache: $HF_HUB_CACHE, or `hub` in $HF_HOME.

    Raises:
        EnvironmentUnfitError: neither is set, and the user has no home.
    """
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(name):
            return _expanded(named)
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return _expanded(home) / "hub"


def _expanded(text: str) -> Path:
    """Return a path with its `~`; a user without a home would get a folder of that name here."""
    path = Path(os.path.expandvars(os.path.expanduser(text)))
    if path.parts[:1] == ("~",):
        raise EnvironmentUnfitError(
            f"this user has no home for {text}: set HF_HOME to a folder for checkpoints."
        )
    return path.absolute()


def repository_folder(repository: str) -> Path:
    """Return the folder of a repository in the cache, which may not be there."""
    return hub_cache() / f"{PREFIX}{repository.replace('/', '--')}"


def repository_of(folder: Path) -> str | None:
    """Return the repository that a folder of a cache is of, None for any other folder."""
    repository = folder.name.removeprefix(PREFIX).replace("--", "/")
    is_cached = folder.name.startswith(PREFIX) and (folder / "snapshots").is_dir()
    return repository if is_cached and is_repository(repository) else None


def place_of(folder: Path) -> HubId | None:
    """Return the repository and the commit that a folder is the snapshot of, None for others."""
    path = folder.resolve()
    repository = repository_of(path.parent.parent)
    is_snapshot = repository and path.parent.name == "snapshots" and is_commit(path.name)
    return HubId(str(repository), path.name) if is_snapshot else None


def snapshot(hub_id: HubId) -> Path | None:
    """Return the snapshot of a repository in the cache, whole or not; None without one."""
    folder = repository_folder(hub_id.repository)
    commit = _commit(folder, hub_id.revision)
    found = folder / "snapshots" / commit if commit else None
    return found if found and found.is_dir() else None


def snapshot_in(folder: Path, revision: str) -> Path:
    """Return the snapshot that a `models--OWNER--NAME` folder holds of a revision.

    Raises:
        ArtefactError: it holds none, or none of that revision.
        ConfigError: it holds several and has no ref that says which is meant.
    """
    there = sorted(path.name for path in (folder / "snapshots").iterdir() if path.is_dir())
    commit = _commit(folder, revision)
    if commit in there:
        return folder / "snapshots" / commit
    if not there:
        raise ArtefactError(f"{folder} holds no snapshot: it was never downloaded to the end.")
    if revision != MAIN or commit is not None:
        raise ArtefactError(
            f"{folder} holds no snapshot of revision {commit or revision}; it holds "
            f"{', '.join(there)}."
        )
    if len(there) > 1:
        raise ConfigError(
            f"{folder} holds several snapshots and no refs/{MAIN}: choose one by "
            f"{folder.name}@COMMIT: {', '.join(there)}."
        )
    return folder / "snapshots" / there[0]


def _commit(folder: Path, revision: str) -> str | None:
    """Return the commit that a revision names in a repository's folder, None if it is not known.

    Raises:
        ArtefactError: the ref holds no commit.
    """
    if is_commit(revision):
        return revision
    ref = folder / "refs" / revision
    if not ref.is_file():
        return None
    text = ref.read_text(encoding="utf-8", errors="replace").strip()
    if not is_commit(text):
        raise ArtefactError(f"{ref} holds {text[:60]!r}, which is no commit; remove it.")
    return text
