"""Several asynchronous streams as one, in the order in which they bring something."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from nemotrt.serve.front.upstream.upstream import Fields, Upstream, UpstreamError

ENDED_EARLY = UpstreamError("engine_failed", "the stream ended before the answer did.")


async def merged(
    upstream: Upstream, inputs: list[Fields], is_done: Callable[[int], bool] = lambda index: False
) -> AsyncIterator[tuple[int, Fields]]:
    """Yield (index, fields) of all requests; closing the iterator cancels what still runs.

    A request of which `is_done` says so, after its fields were yielded, is cancelled too.

    Raises:
        UpstreamError: one of them failed.
    """
    if len(inputs) == 1:
        stream = upstream.generate(inputs[0])
        try:
            async for fields in stream:
                yield 0, fields
                if fields.get("final") or is_done(0):
                    return
            raise ENDED_EARLY
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
    queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(upstream, i, one, queue)) for i, one in enumerate(inputs)]
    try:
        live = set(range(len(tasks)))
        while live:
            index, item = await queue.get()
            if index not in live:
                continue
            if isinstance(item, Exception):
                raise item
            yield index, item
            if item.get("final") or is_done(index):
                live.remove(index)
                tasks[index].cancel()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    upstream: Upstream, index: int, inputs: Fields, queue: asyncio.Queue[tuple[int, Any]]
) -> None:
    """Put one request's fields into the common queue, and what ends them: its reader waits."""
    stream = upstream.generate(inputs)
    try:
        async for fields in stream:
            queue.put_nowait((index, fields))
        queue.put_nowait((index, ENDED_EARLY))  # nobody waits for it after the last fields
    except Exception as error:
        queue.put_nowait((index, error))
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
