"""Requests that run side by side; each finds what it gained in an inbox of its own.

Any thread may have requests: the one that waits for a token steps the scheduler, for all of them.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.request_scheduler import RequestScheduler
from nemotrt.errors import NemotrtError


class LiveRequests:
    """What a scheduler runs for callers that each wait for their own requests; thread-safe."""

    def __init__(self, scheduler: RequestScheduler) -> None:
        """Run nothing yet."""
        self.scheduler = scheduler
        self.inboxes: dict[str, deque[Update]] = {}  # by request
        self._lock = threading.Lock()  # guards the scheduler
        self._pid = os.getpid()
        self._is_closed = False
        self._fault: BaseException | None = None  # that a step ended with

    def close(self) -> bool:
        """Refuse whatever comes from now on; a step that is under way ends first.

        Return whether the engine is to be closed: it is open, and this process's.
        """
        if os.getpid() != self._pid:
            return False
        with self._lock:
            was_open, self._is_closed = not self._is_closed, True
        return was_open

    def check(self) -> None:
        """Raise NemotrtError if nothing can run: after close(), a fault, or a fork.

        A process that was forked has the engine's memory without its threads: it would wait for
        them for ever.
        """
        if os.getpid() != self._pid:
            raise NemotrtError(
                f"the engine was opened in process {self._pid}, and this is a fork of it: open one "
                'here, or start processes by multiprocessing.get_context("spawn").'
            )
        if self._is_closed:
            raise NemotrtError("the engine is closed: open it again.")
        if self._fault is not None:
            raise NemotrtError(f"the engine has failed, open it again: {self._fault}")

    @contextmanager
    def running(self, requests: Sequence[Request]) -> Iterator[None]:
        """Have the scheduler run requests; what has not ended with the block is ended."""
        self.check()
        names = [request.request_id for request in requests]
        try:
            for request in requests:
                with self._lock:
                    self.check()
                    self.scheduler.submit(request)
                    self.inboxes[request.request_id] = deque()
            yield
        finally:
            self._end(names)

    def updates(self, name: str) -> Iterator[Update]:
        """Yield what a running request brings; the last update has a finish reason."""
        inbox, is_over = self.inboxes[name], False
        while not is_over:
            while not inbox:
                self._step(inbox)
            update = inbox.popleft()
            is_over = update.finish_reason is not None
            yield update

    def _end(self, names: Sequence[str]) -> None:
        """Forget requests, and end those that run; a fork or a closed engine has none."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            for name in names:
                self.inboxes.pop(name, None)
                if not (self._is_closed or self._fault):
                    self.scheduler.cancel(name)  # of one that has ended it does nothing

    def _step(self, inbox: deque[Update]) -> None:
        """Go on with every request until there is something for one; or see another do so."""
        self.check()
        with _whole(), self._lock:
            if inbox:
                return
            self.check()
            try:
                updates = self.scheduler.step()
            except BaseException as error:
                self._fault = error
                raise
            for update in updates:
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
