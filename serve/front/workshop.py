"""Processes that prepare calls whose bodies are large, so that nobody else waits for it.

Reading JSON and rendering a template hold Python's lock: a thread would hold up the event loop.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from nemotrt.serve.front.doors.prepare import prepare
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.prepare import CallSettings, Prepared
from nemotrt.serve.processes.give_way import give_way
from nemotrt.serve.requests.endpoints import Endpoint

SMALL_BYTES = 4096  # prepared at once: at most some milliseconds
LARGE_BYTES = 1 << 18  # such bodies have a process apart, so that they delay each other alone
MAX_WAITING = 64  # bodies that wait for one process


class Bench:
    """One process with a bounded queue; it is started at its first use, and again if it dies."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._pool: ProcessPoolExecutor | None = None
        self._num_waiting = 0

    async def do(self, work: Callable[[], Prepared]) -> Prepared:
        """Return the call for a body, which `work` prepares.

        Raises:
            ApiError: the body is refused, or too many wait, or the process has died.
            NeedsEarlierError: it goes on from a response, whose items were not given.
        """
        if self._num_waiting >= MAX_WAITING:
            busy = f"{MAX_WAITING} bodies of this size wait to be read; try later."
            raise ApiError(503, busy, code="queue_full")
        loop = asyncio.get_running_loop()
        self._num_waiting += 1
        try:
            return await loop.run_in_executor(self._running(), work)
        except BrokenProcessPool as error:
            self.close()
            raise ApiError(500, "the body could not be read; try again.", code="fault") from error
        finally:
            self._num_waiting -= 1

    def warm_up(self, settings: CallSettings) -> None:
        """Start the process, and have it read the engine's files."""
        self._running().submit(_settle_in, settings)

    def close(self) -> None:
        """End the process once it has done what it does."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None

    def _running(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=_begin)
        return self._pool


class Workshop:
    """Prepares each call where it disturbs others least."""

    def __init__(self, settings: CallSettings) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._medium, self._large = Bench(), Bench()

    async def prepare(
        self, endpoint: Endpoint, raw: bytes, earlier: bytes | None = None
    ) -> Prepared:
        """Return the call for a body; `earlier` are items of a response that it goes on from.

        Raises:
            ApiError: the body is refused.
            NeedsEarlierError: it goes on from a response, whose items were not given.
        """
        is_alone = self._settings.files.folder is None  # nothing that another process could read
        work = partial(prepare, endpoint, raw, self._settings, earlier)
        num_bytes = len(raw) + len(earlier or b"")
        if is_alone or num_bytes <= SMALL_BYTES:
            return work()
        return await (self._medium if num_bytes <= LARGE_BYTES else self._large).do(work)

    def warm_up(self) -> None:
        """Start what most servers need."""
        if self._settings.files.folder is not None:
            self._medium.warm_up(self._settings)

    def close(self) -> None:
        """End the processes."""
        self._medium.close()
        self._large.close()


def _begin() -> None:
    """Give way to others, leave Ctrl-C to the parent, and end with it however it ends."""
    give_way()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this process was spawned

    def end_with_parent() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _settle_in(settings: CallSettings) -> None:
    """Do nothing more than to receive the settings."""
