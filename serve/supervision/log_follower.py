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
    """One log: the file of it that is open is read to its end, wherever it lies by now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._older = files_of(path)[:-1]
        self._stream: BinaryIO | None = None

    def new_lines(self) -> Iterator[str]:
        try:
            while (stream := self._open()) is not None:
                yield from _whole_lines(stream)
                if self._is_written():
                    return
                stream.close()
                self._stream = None
        except OSError:
            return  # perhaps at the next look

    def _open(self) -> BinaryIO | None:
        if self._stream is None:
            path = self._older.pop(0) if self._older else self._path
            if not path.exists():
                return None
            self._stream = path.open("rb")
        return self._stream

    def _is_written(self) -> bool:
        """Whether the open file is the one that new lines go to."""
        if self._older or self._stream is None or not self._path.exists():
            return False
        return os.path.samestat(os.fstat(self._stream.fileno()), self._path.stat())


def _whole_lines(stream: BinaryIO) -> Iterator[str]:
    """Yield the lines from where a stream stands; it stands behind them afterwards."""
    if os.fstat(stream.fileno()).st_size < stream.tell():
        stream.seek(0)  # it begins anew
    while data := stream.read(MAX_READ_BYTES):
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= MAX_LINE_BYTES:
            end = len(data)
        stream.seek(end - len(data), os.SEEK_CUR)
        if end:
            for line in data[:end].removesuffix(b"\n").split(b"\n"):
                yield line.decode(errors="replace")
        if not end or len(data) < MAX_READ_BYTES:
            return
