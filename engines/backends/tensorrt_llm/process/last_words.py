"""The last lines that a process printed, for the error that tells of its end."""

import contextlib
import os
import threading
from collections import deque
from typing import IO

NUM_LAST_LINES = 15
MAX_LINE_BYTES = 4096  # of them that are kept


class LastWords:
    """Passes on what a process prints to our own standard error, and keeps the last lines."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        """Start to listen."""
        if stream is None:
            raise ValueError("the process was started without a pipe.")
        self._stream = stream
        self._lines: deque[bytes] = deque(maxlen=NUM_LAST_LINES)
        self._thread = threading.Thread(target=self._read, name="last words", daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """Return the last lines, once the process has closed its output or a moment has passed."""
        self._thread.join(1.0)
        return [line.decode(errors="replace").rstrip() for line in tuple(self._lines)]

    def close(self) -> None:
        """Stop listening; whoever still has the pipe prints for nobody."""
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._stream.close()

    def _read(self) -> None:
        while line := self._stream.readline(MAX_LINE_BYTES):
            self._lines.append(line)
            with contextlib.suppress(OSError, ValueError):  # a log that can't be written
                os.write(2, line)
