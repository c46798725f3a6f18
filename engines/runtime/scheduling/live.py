"""Requests that one thread runs side by side; each finds what it gained in an inbox of its own."""

import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.request_scheduler import RequestScheduler


class LiveRequests:
    """What a scheduler runs for callers that each wait for their own requests."""

    def __init__(self, scheduler: RequestScheduler) -> None:
        """Run nothing yet."""
        self.scheduler = scheduler
        self.inboxes: dict[str, deque[Update]] = {}  # by request

    @contextmanager
    def running(self, requests: Sequence[Request]) -> Iterator[None]:
        """Have the scheduler run requests; what has not ended with the block is ended."""
        names = [request.request_id for request in requests]
        try:
            for request in requests:
                self.scheduler.submit(request)
                self.inboxes[request.request_id] = deque()
            yield
        finally:
            for name in names:
                self.inboxes.pop(name, None)
                self.scheduler.cancel(name)  # of one that has ended it does nothing

    def updates(self, name: str) -> Iterator[Update]:
        """Yield what a running request brings; the last update has a finish reason."""
        inbox, is_over = self.inboxes[name], False
        while not is_over:
            while not inbox:
                self._step()
            update = inbox.popleft()
            is_over = update.finish_reason is not None
            yield update

    def _step(self) -> None:
        """Go on with every request; each finds what it gained in its inbox."""
        with _whole():
            for update in self.scheduler.step():
                if update.request_id in self.inboxes:
                    self.inboxes[update.request_id].append(update)


@contextmanager
def _whole() -> Iterator[None]:
    """Let Ctrl-C wait until the block has ended: a step that is cut leaves no engine to go on."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    caught: list[Any] = []
    signal.signal(signal.SIGINT, lambda *what: caught.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        before(*caught[0])
