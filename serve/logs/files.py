"""A process's log file: what the process writes is copied to it, and it is put aside when full.

The supervisor copies, because it alone can put a file aside that others write to: a process's own
standard output would go on into the old one. So every file is whole lines, each with its time, also
those of tritonserver, of native libraries and of a Python that dies.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from nemotrt.serve.logs.lines import Lines
from nemotrt.serve.logs.options import LogFiles, LogOptions
from nemotrt.serve.processes.going_on import going_on


class LogFile:
    """One file and those put aside: NAME.log.1 is the newest of them."""

    def __init__(self, path: Path, limits: LogFiles) -> None:
        """Open nothing yet."""
        self.path, self._limits = path, limits
        self._descriptor: int | None = None
        self._num_bytes = 0
        self._is_torn = False  # the last line is there in part

    def write(self, line: bytes) -> None:
        """Add a line; what the disk does not take is lost, and the next one is tried again."""
        with going_on(f"write {self.path}"):
            if self._descriptor is not None and self._is_full(len(line)):
                self._put_aside()
            if self._descriptor is None:
                self._open()
            self._append(b"\n" + line if self._is_torn else line)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_full(self, num_more: int) -> bool:
        return self._num_bytes > 0 and self._num_bytes + num_more > self._limits.max_bytes

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._num_bytes = os.fstat(self._descriptor).st_size

    def _append(self, data: bytes) -> None:
        assert self._descriptor is not None  # opened above
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        finally:
            self._num_bytes += written
            self._is_torn = self._is_torn if not written else written < len(data)

    def _put_aside(self) -> None:
        """Give each file the next number; the last one is dropped."""
        self.close()
        for number in range(self._limits.log_files, 0, -1):
            newer = aside(self.path, number - 1) if number > 1 else self.path
            if newer.exists():
                os.replace(newer, aside(self.path, number))
        if not self._limits.log_files:
            self.path.unlink()


def aside(path: Path, number: int) -> Path:
    """Return where a log lies that has been put aside so many times."""
    return path.with_name(f"{path.name}.{number}")


def files_of(path: Path) -> list[Path]:
    """Return a log and those put aside that are there, the oldest first."""
    numbered = [
        (int(found.suffix[1:]), found)
        for found in path.parent.glob(f"{path.name}.*")
        if found.suffix[1:].isdecimal()
    ]
    older = [found for _, found in sorted(numbered, reverse=True)]
    return [*older, *([path] if path.exists() else [])]


def remove_logs(path: Path) -> None:
    """Remove a log and those put aside; raises OSError for one that stays."""
    for found in files_of(path):
        found.unlink(missing_ok=True)


def copier(process: str, file: LogFile, options: LogOptions) -> Callable[[bytes], None]:
    """Return what takes each line that a process writes."""
    lines = Lines(process, options.log_format)
    least = logging.getLevelNamesMapping()[options.log_level.name_of_least]

    def copy(line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r\n")
        told = lines.of_output(text, time.time(), least)
        if told is not None:
            file.write(f"{told}\n".encode(errors="replace"))

    return copy
