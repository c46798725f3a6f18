"""A folder that appears whole or not at all: written beside its target, then renamed."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
        yield partial
        _take_name(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentUnfitError(f"no space left to write {target}; make room.") from error
        raise


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


def _take_name(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`, moving an older folder out of the way first."""
    old = target.parent / f".{target.name}.replaced-{os.getpid()}"
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str, is_overwrite: bool) -> None:
    """Write a whole file or nothing; an existing one only with `is_overwrite`.

    Raises:
        ConfigError: the file exists, or its folder does not.
    """
    check_writable(path, is_overwrite)
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path, is_overwrite: bool) -> None:
    """Raise ConfigError where `path` exists without `is_overwrite`, or has no folder."""
    if path.exists() and not is_overwrite:
        raise ConfigError(f"{path} exists; choose another name or add --force.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a folder.")
