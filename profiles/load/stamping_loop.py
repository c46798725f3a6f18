"""An event loop that knows when the kernel woke it.

All data of one wake-up had arrived by then; stamping it when its turn comes would add the time
that the loop spent on the connections before it.
"""

import asyncio
import selectors
import time


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
