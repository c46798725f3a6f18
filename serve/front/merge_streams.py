"""Several asynchronous streams as one, in the order in which they bring something."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from nemotrt.serve.front.upstream import Fields, Upstream, UpstreamError


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
                if is_done(0):
                    break
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        return
    queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(upstream, i, one, queue)) for i, one in enumerate(inputs)]
    try:
        live = set(range(len(tasks)))
        while live:
            index, item = await queue.get()
            if index not in live:
                continue
            if isinstance(item, UpstreamError):
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
    """Put one request's fields, or its error, into the common queue."""
    stream = upstream.generate(inputs)
    try:
        async for fields in stream:
            queue.put_nowait((index, fields))
    except UpstreamError as error:
        queue.put_nowait((index, error))
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
