"""An event loop that knows when the kernel woke it.

All data of one wake-up had arrived by then; stamping it when its turn comes would add the time
that the loop spent on the connections before it.
"""

import asyncio
import contextlib
import selectors
import time
from typing import NamedTuple

HEARTBEAT_S = 0.02


class StampingSelector(selectors.DefaultSelector):  # type: ignore[valid-type, misc, unused-ignore]
    """The platform's selector; `woke_s` is when its last wait ended, `idle_s` all its waiting."""

    woke_s = 0.0
    idle_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, and note the time."""
        start_s = time.perf_counter()
        events: list[tuple[selectors.SelectorKey, int]] = super().select(timeout)
        self.woke_s = time.perf_counter()
        self.idle_s += self.woke_s - start_s
        return events


class StampingLoop(asyncio.SelectorEventLoop):
    """An event loop over a StampingSelector."""

    def __init__(self) -> None:
        """Make the loop."""
        self.selector = StampingSelector()
        super().__init__(self.selector)


def arrival_s() -> float:
    """Return when the data that is now being handled had arrived."""
    loop = asyncio.get_running_loop()
    return loop.selector.woke_s if isinstance(loop, StampingLoop) else time.perf_counter()


def idle_s() -> float:
    """Return how long the running loop has waited with nothing to do; 0 if it does not count it."""
    loop = asyncio.get_running_loop()
    return loop.selector.idle_s if isinstance(loop, StampingLoop) else 0.0


class Beat(NamedTuple):
    """A heartbeat of the driver: how late it came, and what the driver had used and waited."""

    at_s: float
    late_s: float
    cpu_s: float
    idle_s: float


async def heartbeat(beats: list[Beat]) -> None:
    """Note how late each wake-up comes."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            due_s = time.perf_counter() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            beats.append(beat(due_s))


def beat(due_s: float) -> Beat:
    """Return what the driver has used so far, at a moment that was due at `due_s`."""
    now_s = time.perf_counter()
    return Beat(now_s, max(now_s - due_s, 0.0), time.thread_time(), idle_s())
