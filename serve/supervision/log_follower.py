"""The lines that a server's processes write to their logs, as they come, each with its process."""

from collections.abc import Iterable, Iterator
from pathlib import Path

MAX_LINE_BYTES = 1 << 16  # a longer one is shown in pieces
MAX_READ_BYTES = 1 << 24  # at one look


class LogFollower:
    """Follows several log files; one that is not there yet, or begins anew, is no fault."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Start at the beginning of each."""
        self._paths = list(paths)
        self._width = max(len(path.stem) for path in self._paths)
        self._offsets = dict.fromkeys(self._paths, 0)

    def lines(self) -> Iterator[str]:
        """Yield what has come since the last call, whole lines only."""
        for path in self._paths:
            for line in self._new_lines(path):
                yield f"{path.stem:<{self._width}} | {line}"

    def _new_lines(self, path: Path) -> list[str]:
        try:
            size = path.stat().st_size
            offset = self._offsets[path] if self._offsets[path] <= size else 0
            if size == offset:
                return []
            with path.open("rb") as stream:
                stream.seek(offset)
                data = stream.read(min(size - offset, MAX_READ_BYTES))
        except FileNotFoundError:
            self._offsets[path] = 0
            return []
        except OSError:
            return []  # perhaps at the next look
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= MAX_LINE_BYTES:
            end = len(data)
        self._offsets[path] = offset + end
        return data[:end].decode(errors="replace").splitlines()
