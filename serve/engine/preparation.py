"""Threads that turn a client's inputs into submissions, so that nobody else waits for the work.

Tokenizing and compiling grammars leave the other Python threads running, but take long for some
requests. Those have threads apart from the rest, so that a large request delays large ones alone.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MAX_WAITING = 256  # requests that wait for a thread of one lane
LIGHT_CHARACTERS = 2000  # about a millisecond's work: not worth a thread's wake-up
LARGE_CHARACTERS = 1 << 16
NICENESS = 5
NUM_THREADS = 2  # of the lane for what is neither light nor large


class Lane:
    """Threads with a bounded queue."""

    def __init__(self, name: str, num_threads: int) -> None:
        """Start nothing yet."""
        name = f"prepare {name}"
        self._pool = ThreadPoolExecutor(num_threads, name, initializer=_give_way)
        self._lock = threading.Lock()
        self._num_waiting = 0

    def run(self, work: Callable[[], None]) -> bool:
        """Queue some work; False if too much waits."""
        with self._lock:
            if self._num_waiting >= MAX_WAITING:
                return False
            self._num_waiting += 1
        self._pool.submit(self._one, work)
        return True

    def close(self) -> None:
        """Drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._num_waiting -= 1
        work()


class Preparation:
    """Runs each request's work where it disturbs others least."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._small, self._large = Lane("small", NUM_THREADS), Lane("large", 1)

    def run(self, work: Callable[[], None], size: int) -> bool:
        """Do work of `size` characters, at once or soon; False if too much waits."""
        if size <= LIGHT_CHARACTERS:
            work()
            return True
        return (self._small if size <= LARGE_CHARACTERS else self._large).run(work)

    def close(self) -> None:
        """Drop what waits."""
        self._small.close()
        self._large.close()


def _give_way() -> None:
    """Let the engine's threads go first where there are fewer cores than work."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def work_size(inputs: dict[str, Any], *, is_compiled: bool) -> int:
    """Return the characters and ids that a request's preparation goes through.

    A grammar counts for no less than a small request, since a short one may cost much; one that is
    compiled already costs nothing.
    """
    size = sum(len(str(value)) if isinstance(value, str) else 0 for value in inputs.values())
    size += sum(len(value) for value in inputs.values() if isinstance(value, list))
    stops = inputs.get("stop_words")
    size += sum(len(s) for s in stops if isinstance(s, str)) if isinstance(stops, list) else 0
    if not inputs.get("guided_decoding_guide_type"):
        return size
    guide = inputs.get("guided_decoding_guide")
    if is_compiled:
        return size - (len(guide) if isinstance(guide, str) else 0)
    return max(size, LIGHT_CHARACTERS + 1)
