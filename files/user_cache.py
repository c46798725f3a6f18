"""Where what this machine compiled or measured is kept between runs.

Compiled code is loaded from there, so it must be a folder that no other user can write to. Without
one, a folder of this process's own does for as long as it runs.
"""

import atexit
import functools
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError

PRIVATE = 0o700


def user_cache() -> Path:
    """Return a cache folder that can be written: the usual one, or else a temporary one.

    Raises:
        EnvironmentUnfitError: nothing can be written anywhere.
    """
    usual = usual_path()
    return _writable(None if usual is None else str(usual))


def usual_cache() -> Path | None:
    """Return our folder in the user's cache if it is there and no other user's; it may be read."""
    usual = usual_path()
    try:
        _check_private(usual)
    except OSError:
        return None
    return usual


def usual_path() -> Path | None:
    """Return $XDG_CACHE_HOME/nemotrt, or that of ~/.cache; None for a user without a home."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the specification ignores others
        return Path(named) / "nemotrt"
    try:
        return Path.home() / ".cache" / "nemotrt"
    except RuntimeError:
        return None


def check_loads(place: Path) -> None:
    """Raise EnvironmentUnfitError where compiled code can't be loaded from a folder or a file."""
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise EnvironmentUnfitError(
            f"{place} is on a disk that is mounted noexec, and compiled code is loaded from it: "
            "set XDG_CACHE_HOME to a folder of another disk"
        )


@functools.cache
def _writable(usual: str | None) -> Path:
    """Return the folder to write to, with a note where it is not the usual one."""
    path = None if usual is None else Path(usual)
    try:
        if path is not None:
            path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        _check_private(path)
        assert path is not None  # checked there
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(1))
        return path
    except OSError as error:
        why = error.strerror or str(error)
    try:
        temporary = Path(tempfile.mkdtemp(prefix="nemotrt-cache-"))
    except OSError as error:
        raise EnvironmentUnfitError(
            f"neither the cache {path} nor a temporary folder can be written: {why}; "
            "set XDG_CACHE_HOME or TMPDIR."
        ) from error
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    print(
        f"nemotrt: the cache {path or '(no home)'} can't be used ({why}); what is compiled is kept "
        "for this run alone. Set XDG_CACHE_HOME.",
        file=sys.stderr,
    )
    return temporary


def _check_private(path: Path | None) -> None:
    """Raise OSError unless only this user, or root, can put a file into `path`, or replace it."""
    if path is None:
        raise OSError("this user has no home")
    own = path.stat()
    if own.st_uid != os.getuid():
        raise OSError("it belongs to another user")
    if own.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        path.chmod(PRIVATE)
    parent = path.parent.stat()
    is_common = bool(parent.st_mode & stat.S_IWOTH) and not parent.st_mode & stat.S_ISVTX
    if parent.st_uid not in (os.getuid(), 0) or is_common:
        raise OSError("another user can replace it")
