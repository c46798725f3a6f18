"""This user's servers: those in the folder of run folders, and those that were given one elsewhere.

A server elsewhere leaves a link in the folder of run folders; its name is of our own making.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.serve.processes.run_folder import (
    STATE_FILE,
    RunFolder,
    ServerState,
    make_runs_root,
    runs_root,
)

log = logging.getLogger("nemotrt.serve")
LINK_PREFIX = ".elsewhere-"


def register(folder: RunFolder) -> None:
    """Let `list_states` find a run folder wherever it is; a failure is logged."""
    link = _link(folder)
    if link is None:
        return
    try:
        make_runs_root()
        link.unlink(missing_ok=True)
        link.symlink_to(folder.path, target_is_directory=True)
    except (OSError, ConfigError) as error:
        log.warning("the server will not be listed: %s", error)


def unregister(folder: RunFolder) -> None:
    """Take a run folder off the list."""
    link = _link(folder)
    if link is not None and link.is_symlink():
        link.unlink(missing_ok=True)


def list_states() -> Iterator[ServerState]:
    """Yield every server that has left a state, dead or alive; links to nothing are removed."""
    root = runs_root()
    try:
        paths = sorted(path for path in root.iterdir() if path.is_dir() or path.is_symlink())
    except OSError:
        return  # no server has made it
    for path in paths:
        is_link = path.name.startswith(LINK_PREFIX) and path.is_symlink()
        if is_link and not (path / STATE_FILE).exists():
            path.unlink(missing_ok=True)
            continue
        try:
            state = _own_state(path)
        except ArtefactError as error:
            log.warning("%s", error.message)
            continue
        if state is not None:
            yield state


def choose_server(name: str | None, run_dir: Path | None, *, is_alive: bool) -> ServerState:
    """Return the server called `name`, the one of a run folder, or the only one there is.

    Args:
        name: as `nemotrt serve status` shows it.
        run_dir: its run folder; needed where two servers have one name.
        is_alive: whether the dead are left out.

    Raises:
        ConfigError: there is none such, or more than one.
    """
    if run_dir is not None:
        state = _own_state(run_dir.absolute())
        if state is None or (is_alive and not state.is_alive) or name not in (None, state.name):
            raise ConfigError(f"no such server runs in {run_dir}.")
        return state
    states = [state for state in list_states() if state.is_alive or not is_alive]
    known = ", ".join(state.name for state in states) or "none"
    if name is None and len(states) != 1:
        raise ConfigError(f"there are {len(states)} servers ({known}); give a NAME.")
    found = [state for state in states if name in (None, state.name)]
    if not found:
        raise ConfigError(f"there is no server {name!r}; there are: {known}.")
    if len(found) > 1:
        folders = ", ".join(state.run_folder for state in found)
        raise ConfigError(
            f"{len(found)} servers are named {name!r}; give one's --run-dir: {folders}."
        )
    return found[0]


def _own_state(path: Path) -> ServerState | None:
    """Return the state in a folder of this user's; another user's is not believed."""
    try:
        if path.stat().st_uid != os.getuid():
            return None
    except OSError:
        return None
    return RunFolder(path).read_state()


def _link(folder: RunFolder) -> Path | None:
    """Return the link to a run folder, None for one that needs none."""
    root = runs_root()
    if folder.path.parent == root:
        return None
    digest = hashlib.sha256(os.fsencode(folder.path)).hexdigest()[:16]
    return root / f"{LINK_PREFIX}{digest}"
