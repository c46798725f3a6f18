"""Kept states that a device copies to page-locked memory: read by the host once they are there."""

from dataclasses import dataclass

from nemotrt.engines.backends.tensorrt.device.stream import Stream
from nemotrt.engines.runtime.kept_state import CachedTokens, FixedState


class Arrivals:
    """How many of a stream's copies to the host are known to be done."""

    def __init__(self, stream: Stream) -> None:
        """Start with none."""
        self._stream = stream
        self._enqueued = self._done = 0

    def next(self) -> int:
        """Return the number of a copy that has just been enqueued."""
        self._enqueued += 1
        return self._enqueued

    def wait(self, number: int) -> None:
        """Wait for a copy, and for what was enqueued since, unless it is known to be done."""
        if number > self._done:
            self._stream.synchronize()
            self._done = self._enqueued


@dataclass(frozen=True, slots=True)
class ArrivingState(FixedState):
    """In page-locked memory, of which it holds a piece."""

    arrivals: Arrivals
    number: int

    def wait(self) -> None:
        """Wait for the copy."""
        self.arrivals.wait(self.number)


@dataclass(frozen=True, slots=True)
class ArrivingTokens(CachedTokens):
    """In page-locked memory, of which they hold a piece."""

    arrivals: Arrivals
    number: int

    def wait(self) -> None:
        """Wait for the copy."""
        self.arrivals.wait(self.number)
