"""Where a shard's bytes go: into its file, or against the bytes that an earlier run wrote there."""

import errno
import os
from dataclasses import dataclass

from nemotrt.quantize.conversion.convert import shortened


class MismatchError(Exception):
    """A shard that was called finished has other bytes than it should."""


@dataclass(frozen=True, slots=True)
class Writing:
    """A sink that writes to file `fd`."""

    fd: int

    def put(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, offset)
            view, offset = view[count:], offset + count

    def copy(self, source: int, begin: int, offset: int, count: int) -> None:
        """Copy `count` bytes from file `source`, inside the kernel where it can."""
        while count:
            try:
                done = os.copy_file_range(source, self.fd, count, begin, offset)
            except OSError as error:
                if error.errno is None or not _is_unsupported(error.errno):
                    raise
                done = 0
            if not done:
                data = os.pread(source, count, begin)
                self.put(offset, data)
                if not data:
                    raise shortened()
                done = len(data)
            begin, offset, count = begin + done, offset + done, count - done


@dataclass(frozen=True, slots=True)
class Checking:
    """A sink that compares with what file `fd` has."""

    fd: int

    def put(self, offset: int, data: memoryview | bytes) -> None:
        """Raise MismatchError unless the file has `data` at `offset`."""
        if os.pread(self.fd, len(data), offset) != data:
            raise MismatchError

    def copy(self, source: int, begin: int, offset: int, count: int) -> None:
        """Raise MismatchError unless the two ranges are alike."""
        self.put(offset, os.pread(source, count, begin))


Sink = Writing | Checking


def _is_unsupported(code: int) -> bool:
    """Whether copy_file_range can't serve these two files (two filesystems, or an odd one)."""
    return code in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
