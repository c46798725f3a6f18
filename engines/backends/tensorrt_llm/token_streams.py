"""Follows requests of an `LLM` in a thread of its own; what they gain comes out of one queue.

`LLM.generate_async` can be iterated asynchronously only if an event loop runs where it is called,
so it is called in the thread's loop.
"""

import asyncio
import itertools
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gained:
    """What one response brought: new token ids, their log-probabilities, and how it ended.

    `logprobs` is one mapping of token id to a `Logprob` for each id, or empty. `fault` is the
    exception that ended the request. `context_logits` [prompt tokens, vocab] come with the first
    response, if they were asked for.
    """

    number: int
    ids: tuple[int, ...] = ()
    logprobs: tuple[Any, ...] = ()
    finish_reason: str | None = None
    fault: BaseException | None = None
    context_logits: Any = None


class TokenStreams:
    """Starts and aborts requests from any thread; `take` is for one thread."""

    def __init__(self, llm: Any) -> None:
        """Start the thread."""
        self._llm = llm
        self._numbers = itertools.count()
        self._gained: queue.SimpleQueue[Gained] = queue.SimpleQueue()
        self._results: dict[int, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="token streams", daemon=True
        )
        self._thread.start()

    def start(self, prompt: Sequence[int], params: Any) -> int:
        """Start a request and return its number; it is heard of through `take` alone."""
        number = next(self._numbers)
        self._loop.call_soon_threadsafe(self._launch, number, list(prompt), params)
        return number

    def abort(self, number: int) -> None:
        """Ask the LLM to give a request up; one that has ended is left alone."""
        self._loop.call_soon_threadsafe(self._abort, number)

    def take(self, timeout_s: float) -> list[Gained]:
        """Return what has come, waiting for the first; empty if nothing came in time."""
        try:
            gained = [self._gained.get(timeout=timeout_s)]
        except queue.Empty:
            return []
        while True:
            try:
                gained.append(self._gained.get_nowait())
            except queue.Empty:
                return gained

    def close(self) -> None:
        """End the thread; requests that still run are no longer followed."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _launch(self, number: int, prompt: list[int], params: Any) -> None:
        """Hand a request to the LLM at once, so that an abort behind it finds it."""
        try:
            result = self._llm.generate_async(prompt, sampling_params=params, streaming=True)
        except Exception as error:  # whoever takes it knows whether it is fatal
            self._gained.put(Gained(number, fault=error))
            return
        self._results[number] = result
        task = self._loop.create_task(self._follow(number, result))
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, number: int, result: Any) -> None:
        """Pass on each response of one request."""
        num_seen = 0
        try:
            async for response in result:
                output = response.outputs[0]
                ids = tuple(output.token_ids[num_seen:])
                logprobs = tuple((output.logprobs or ())[num_seen:])
                context = getattr(response, "context_logits", None) if not num_seen else None
                num_seen += len(ids)
                reason = output.finish_reason
                news = Gained(number, ids, logprobs, reason, context_logits=context)
                self._gained.put(news)
        except Exception as error:  # as above
            self._gained.put(Gained(number, fault=error))
        finally:
            self._results.pop(number, None)

    def _abort(self, number: int) -> None:
        """Abort in the loop's thread."""
        if number in self._results:
            self._results[number].abort()

    async def _cancel_all(self) -> None:
        """Stop following."""
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
