"""A folder or a file that appears whole or not at all: written beside its target, then renamed."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nemotrt.errors import ConfigError, EnvironmentUnfitError


@contextmanager
def writing_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `target`; on success it takes that name, on any fault it goes.

    A killed process leaves only a hidden `.NAME.partial-PID` folder, which never looks finished.

    Raises:
        ConfigError: `target` exists and `force` is false.
        EnvironmentUnfitError: the folder can't be made there, or the disk is full.
    """
    check_target(target, force=force)
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        with _room_for(target):
            yield partial
            take_name(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make `path` and its parents; raise EnvironmentUnfitError if the system refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise EnvironmentUnfitError(f"a folder can't be made in {path.parent}: {why}.") from error


def check_target(target: Path, *, force: bool = False) -> None:
    """Raise ConfigError if `target` is in the way; call it before long work starts."""
    if target.exists() and not force:
        raise ConfigError(f"{target} exists; give another output or --force to replace it.")
    if target.is_symlink() and not target.exists():
        raise ConfigError(f"{target} is a link to nothing; give another output.")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file, not a folder; --force replaces folders only.")


def take_name(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`, moving an older folder out of the way first."""
    old = target.parent / f".{target.name}.replaced"
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)  # of a run that was killed right here
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def writing_file(target: Path, *, force: bool = True) -> Iterator[Path]:
    """Yield a new path beside `target`; on success it takes that name, on any fault it goes.

    Raises:
        ConfigError: `target` exists and `force` is false, or it has no folder.
        EnvironmentUnfitError: the disk is full.
    """
    check_file(target, force=force)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with _room_for(target):
            yield partial
            partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_file(target: Path, content: str | bytes, *, force: bool = True) -> None:
    """Write a whole file or nothing; raises as `writing_file`."""
    with writing_file(target, force=force) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def check_file(target: Path, *, force: bool = True) -> None:
    """Raise ConfigError where `target` is in the way or has no folder; call it before long work."""
    if target.exists() and not force:
        raise ConfigError(f"{target} exists; choose another name or add --force.")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is not a folder.")


@contextmanager
def _room_for(target: Path) -> Iterator[None]:
    """Say a full disk in one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"no space left to write {target} ({error.strerror}); make room."
            raise EnvironmentUnfitError(why) from error
        raise
