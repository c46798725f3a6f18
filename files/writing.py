"""A folder or a file that appears whole or not at all: written beside its target, then renamed."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nemotrt.errors import ConfigError, EnvironmentUnfitError

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextmanager
def writing_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `target`; on success it takes that name, on any fault it goes.

    A killed process leaves only a hidden `.NAME.partial-...` folder, which never looks finished.
    A link to a folder stays one: the folder that it leads to is replaced.

    Raises:
        ConfigError: `target` exists and `force` is false, also if it came meanwhile.
        EnvironmentUnfitError: the folder can't be made there, or the disk is full.
    """
    check_target(target, force=force)
    target = led_to(target)
    partial = _beside(target)
    make_folder(partial)
    try:
        with _room_for(target):
            yield partial
            take_name(partial, target, force=force)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make `path` and its parents; raise EnvironmentUnfitError if the system refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        line = f"a folder can't be made in {path.parent}: {why}. Give another output."
        raise EnvironmentUnfitError(line) from error


def check_target(target: Path, *, force: bool = False, marks: Sequence[str] = ()) -> None:
    """Raise an error if `target` is in the way; call it before long work starts.

    Args:
        target: a folder that is to be made.
        force: whether an older one is replaced.
        marks: files, or patterns of them, one of which is in every folder that may be replaced,
            unless it is empty; none allows every folder.

    Raises:
        ConfigError: it exists, and is not to be replaced.
        EnvironmentUnfitError: nothing can be written there.
    """
    if target.exists() and not force:
        raise ConfigError(f"{target} exists; give another output or --force to replace it.")
    if target.is_symlink() and not target.exists():
        raise ConfigError(f"{target} is a link to nothing; give another output.")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file, not a folder; --force replaces folders only.")
    _check_writable(target)
    if target.exists():
        _check_replaced(target, marks)


def _check_replaced(target: Path, marks: Sequence[str]) -> None:
    """Raise ConfigError if a folder holds what is none of ours: nobody meant to lose it."""
    own = real(target)
    if own == Path.cwd() or own in Path.cwd().parents:
        raise ConfigError(f"{target} is where you are; give an output inside it.")
    if marks and any(own.iterdir()) and not any(any(own.glob(mark)) for mark in marks):
        raise ConfigError(
            f"{target} is not replaced, even with --force: it has no {' or '.join(marks)}, so it "
            "holds something else. Give another output, or remove it yourself."
        )


def led_to(target: Path) -> Path:
    """Return what is written: what a link leads to, and what is not there as it is named."""
    return real(target) if target.exists() or target.is_symlink() else target


def real(path: Path) -> Path:
    """Return a path without links; what goes round in a loop stays, for the system to refuse."""
    return Path(os.path.realpath(path))


def take_name(partial: Path, target: Path, *, force: bool = True) -> None:
    """Rename `partial` to `target`, moving an older folder out of the way first.

    Raises:
        ConfigError: there is one, and `force` is false; `partial` stays.
    """
    if not force:
        try:
            partial.rename(target)  # takes the place of an empty folder at most
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            raise ConfigError(
                f"{target} exists now: another process wrote it meanwhile, and it stays. Give "
                "another output or --force to replace it."
            ) from error
        return
    old = target.parent / f".{target.name}.replaced"
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)  # of a run that was killed right here
        target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path) -> Path:
    """Return a hidden name beside `target` that no other process or thread has.

    Its number alone would not do: in containers that share a disk each process may be number 1.
    """
    return target.with_name(f".{target.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def writing_file(target: Path, *, force: bool = True) -> Iterator[Path]:
    """Yield a new path beside `target`; on success it takes that name, on any fault it goes.

    A link to a file stays one, and a device or a pipe, such as /dev/null, is written as it is.

    Raises:
        ConfigError: `target` exists and `force` is false, or it has no folder, or is one.
        EnvironmentUnfitError: the disk is full, or the system refuses to write there.
    """
    check_file(target, force=force)
    if _is_device(target):
        with _room_for(target):
            yield target
        return
    target = led_to(target)
    partial = _beside(target)
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
    """Raise an error where `target` is in the way or has no folder; call it before long work.

    Raises:
        ConfigError: it exists and is not to be replaced, or it has no folder, or is one.
        EnvironmentUnfitError: nothing can be written there.
    """
    if _is_device(target):
        return
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; give the name of a file.")
    if target.exists() and not force:
        raise ConfigError(f"{target} exists; choose another name or add --force.")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is not a folder.")
    _check_writable(target)


def _is_device(target: Path) -> bool:
    """Whether a path is a device, a pipe or a socket: a rename would take its place."""
    return target.exists() and not (target.is_file() or target.is_dir())


def unfit_place(error: OSError, target: str | Path | None = None) -> EnvironmentUnfitError | None:
    """Return the error for a disk that is full or a place that takes no files; None for others."""
    place, why = target or error.filename, error.strerror or error
    if error.errno in FULL:
        what = f"no space left to write {place}" if place else "no space left on the disk"
        return EnvironmentUnfitError(
            f"{what} ({why}); make room, or give another output; temporary files go by TMPDIR."
        )
    if error.errno in REFUSED and place:
        return EnvironmentUnfitError(
            f"{place} can't be read or written ({why}): give another path, or change its mode."
        )
    return None


def _check_writable(target: Path) -> None:
    """Raise EnvironmentUnfitError where the folder that is to take `target` takes no files."""
    folder = next(path for path in (target.absolute()).parents if path.exists())
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        why = "the file system is read-only, or the folder is another user's"
        raise EnvironmentUnfitError(
            f"{target} can't be written: {why}. Give another output than one in {folder}."
        )


@contextmanager
def _room_for(target: Path) -> Iterator[None]:
    """Say a full disk, or one that takes no files, in one line."""
    try:
        yield
    except OSError as error:
        found = unfit_place(error, target)
        if found is None:
            raise
        raise found from error
