"""Follows requests of an `LLM` in a thread of its own; what they gain comes out of one queue.

`LLM.generate_async` can be iterated asynchronously only if an event loop runs where it is called,
so it is called in the thread's loop.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class News:
    """One response of a request: what is new in it, as the LLM has it.

    `fault` is the exception that ended the request. `context_logits` [prompt tokens, vocab] come
    with the first response, if they were asked for; so does the count of the prompt's tokens that
    were not computed.
    """

    number: int
    ids: tuple[int, ...] = ()
    logprobs: tuple[Any, ...] = ()
    finish_reason: str | None = None
    fault: BaseException | None = None
    context_logits: Any = None
    cached_tokens: Any = None


class TokenStreams:
    """Starts and aborts requests from any thread; `take` is for one thread."""

    def __init__(self, llm: Any) -> None:
        """Start the thread."""
        self._llm = llm
        self._news: queue.SimpleQueue[News | None] = queue.SimpleQueue()
        self._results: dict[int, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="token streams", daemon=True
        )
        self._thread.start()

    def start(
        self,
        number: int,
        prompt: Sequence[int],
        make_params: Callable[[], Any],
        make_more: Mapping[str, Callable[[], Any]],
    ) -> None:
        """Start a request under a number; it is heard of through `take` alone.

        `make_more` makes further arguments; a fault of theirs is the request's.
        """
        self._loop.call_soon_threadsafe(self._launch, number, list(prompt), make_params, make_more)

    def abort(self, number: int) -> None:
        """Ask the LLM to give a request up; one that has ended is left alone."""
        self._loop.call_soon_threadsafe(self._abort, number)

    def take(self) -> list[News]:
        """Return what has come, waiting for the first; empty once it is closed."""
        found = [self._news.get()]
        while not self._news.empty():
            found.append(self._news.get())
        return [news for news in found if news is not None]

    def close(self) -> None:
        """End the thread; requests that still run are no longer followed."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._news.put(None)

    def _launch(
        self,
        number: int,
        prompt: list[int],
        make_params: Callable[[], Any],
        make_more: Mapping[str, Callable[[], Any]],
    ) -> None:
        """Hand a request to the LLM at once, so that an abort behind it finds it."""
        try:
            params = make_params()
            more = {name: make() for name, make in make_more.items()}
            result = self._llm.generate_async(
                prompt, sampling_params=params, streaming=True, **more
            )
        except Exception as error:  # whoever takes it knows whether it is fatal
            self._news.put(News(number, fault=error))
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
                first = {} if num_seen else _of_prompt(response)
                num_seen += len(ids)
                reason = output.finish_reason
                self._news.put(News(number, ids, logprobs, reason, **first))
        except Exception as error:  # as above
            self._news.put(News(number, fault=error))
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


def _of_prompt(response: Any) -> dict[str, Any]:
    """Return what a first response says of the prompt."""
    return {name: getattr(response, name, None) for name in ("context_logits", "cached_tokens")}
