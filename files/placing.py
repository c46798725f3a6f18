"""Puts files into a new folder: without copying them, where the file system can."""

import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.progress import byte_progress, readable_size

FICLONE = 0x40049409  # Source: linux/fs.h
SHARED_BYTES = 1 << 20  # smaller files are copied, so that who edits one edits no other
BLOCK_BYTES = 1 << 28
NOT_IN_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Placed(NamedTuple):
    """How many bytes of all were copied; the others lie on the disk once."""

    num_bytes: int
    copied_bytes: int


def place_files(pairs: Sequence[tuple[Path, Path]], *, quiet: bool = False) -> Placed:
    """Put each source at its target, in one folder that is new and empty.

    Raises:
        EnvironmentUnfitError: the disk has no room for what must be copied; nothing is copied yet.
    """
    sizes = {target: source.stat().st_size for source, target in pairs}
    for folder in dict.fromkeys(target.parent for _, target in pairs):
        folder.mkdir(parents=True, exist_ok=True)
    rest = [(s, t) for s, t in pairs if sizes[t] < SHARED_BYTES or not _share(s.resolve(), t)]
    num_bytes = sum(sizes[target] for _, target in rest)
    if rest:
        _check_room(rest[0][1].parent, num_bytes)
    with byte_progress("copying", num_bytes, quiet=quiet) as advance:
        for source, target in rest:
            _copy(source, target)
            advance(sizes[target])
    return Placed(sum(sizes.values()), num_bytes)


def _share(source: Path, target: Path) -> bool:
    """Let the target have the source's bytes, as a clone or else a link; False where it can't."""
    with suppress(OSError):
        with source.open("rb") as one, target.open("xb") as other:
            fcntl.ioctl(other.fileno(), FICLONE, one.fileno())
        shutil.copystat(source, target)
        return True
    target.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(source, target)
        return True
    return False


def _check_room(folder: Path, num_bytes: int) -> None:
    """Raise EnvironmentUnfitError unless so many bytes are free."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise EnvironmentUnfitError(
            f"{readable_size(num_bytes)} are to be copied, and the disk of the output has "
            f"{readable_size(free)} free; make room, or give an output on the disk of the sources."
        )


def _copy(source: Path, target: Path) -> None:
    """Copy a file, inside the kernel where it can."""
    with source.open("rb") as one, target.open("xb") as other:
        try:
            while os.copy_file_range(one.fileno(), other.fileno(), BLOCK_BYTES):
                pass
        except OSError as error:
            if error.errno not in NOT_IN_KERNEL:
                raise
            one.seek(other.seek(0, os.SEEK_END))
            shutil.copyfileobj(one, other)
    shutil.copystat(source, target)
