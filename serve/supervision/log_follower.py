"""The lines that a server's processes write to their logs, as they come, each with its process."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from nemotrt.serve.logs.files import files_of
from nemotrt.serve.logs.lines import JSON_START

MAX_LINE_BYTES = 1 << 16  # a longer one is shown in pieces
MAX_READ_BYTES = 1 << 24  # at once


class LogFollower:
    """Follows several log files; one that is not there yet, or begins anew, is no fault."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Start at the beginning of each, which may have been put aside."""
        found = list(paths)
        width = max((len(path.stem) for path in found), default=0)
        self._logs = [(f"{path.stem:<{width}} | ", _Log(path)) for path in found]

    def lines(self) -> Iterator[str]:
        """Yield what has come since the last call, whole lines only; an object has its process."""
        for name, log in self._logs:
            for line in log.new_lines():
                yield line if line.startswith(JSON_START) else f"{name}{line}"


class _Log:
    """One log: the file that was read last is read to its end, wherever it lies by now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._offset = 0

    def new_lines(self) -> Iterator[str]:
        try:
            for path in self._unread():
                with path.open("rb") as stream:
                    found = os.fstat(stream.fileno())
                    if found.st_ino != self._inode or found.st_size < self._offset:
                        self._inode, self._offset = found.st_ino, 0  # another, or it begins anew
                    yield from self._whole_lines(stream)
        except FileNotFoundError:
            self._inode = None
        except OSError:
            return  # perhaps at the next look

    def _unread(self) -> list[Path]:
        """Return the files that may have lines which are not read yet, the oldest first."""
        found = self._path.stat()
        if found.st_ino == self._inode:
            return [] if found.st_size == self._offset else [self._path]
        every = files_of(self._path)
        known = [i for i, path in enumerate(every) if path.stat().st_ino == self._inode]
        return every[known[0] if known else 0 :]

    def _whole_lines(self, stream: BinaryIO) -> Iterator[str]:
        stream.seek(self._offset)
        while data := stream.read(MAX_READ_BYTES):
            end = data.rfind(b"\n") + 1
            if not end and len(data) >= MAX_LINE_BYTES:
                end = len(data)
            self._offset = stream.seek(end - len(data), os.SEEK_CUR)
            if not end:
                return
            for line in data[:end].removesuffix(b"\n").split(b"\n"):
                yield line.decode(errors="replace")
