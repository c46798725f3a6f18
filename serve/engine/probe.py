"""Asks the engine process how it is."""

import itertools
import socket
import time
from pathlib import Path

from nemotrt.wire.frames import Frame, encode, read_frames

PROBE_TIMEOUT_S = 5.0
STALL_S = 120.0  # an engine step that lasts longer than this is taken for one that never ends


def ask_engine(path: Path, operation: str) -> Frame | None:
    """Return the engine process's answer to an operation without arguments; None if there is none.

    The operations are "status", how many requests wait and run, and "metrics".
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PROBE_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(encode({"op": operation, "id": 0}))
            return next(itertools.islice(read_frames(connection), 1), None)
    except OSError:
        return None


class EngineProbe:
    """Knows an engine that answers from one that also gets on with its work."""

    def __init__(self, path: Path) -> None:
        """Watch the engine process that listens at `path`."""
        self._path = path
        self._num_steps = -1
        self._moved_s = time.monotonic()

    def is_ready(self) -> bool:
        """Whether the engine process answers."""
        return ask_engine(self._path, "status") is not None

    def is_well(self) -> bool:
        """Whether it answers and, if requests run, has made a step lately."""
        status = ask_engine(self._path, "status")
        if status is None:
            return False
        now = time.monotonic()
        if status["num_steps"] != self._num_steps or not status["num_running"]:
            self._num_steps, self._moved_s = status["num_steps"], now
        return now - self._moved_s < STALL_S
