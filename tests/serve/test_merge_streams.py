"""Several streams as one: whatever ends one of them, whoever waits hears of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nemotrt.serve.front.upstream.merge_streams import merged
from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError


class Upstream:
    """Two fields for each request, then what the request says ends it."""

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        for _ in range(2):
            await asyncio.sleep(0)
            yield {"text_output": "x"}
        end = inputs["end"]
        if isinstance(end, Exception):
            raise end
        if end:
            yield {"final": True}

    async def is_ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


async def read(inputs: list[Fields]) -> list[tuple[int, Any]]:
    return [item async for item in merged(Upstream(), inputs)]


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize(
    ("end", "error"),
    [
        (False, UpstreamError),
        (UpstreamError("engine_failed", "why"), UpstreamError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_an_end_without_last_fields_is_an_error(end, error, others) -> None:
    inputs = [{"end": end}, *({"end": True} for _ in range(others))]
    with pytest.raises(error):
        asyncio.run(asyncio.wait_for(read(inputs), 10))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_whole_streams_are_passed_on(count) -> None:
    found = asyncio.run(asyncio.wait_for(read([{"end": True}] * count), 10))
    assert [sum(i == index for i, _ in found) for index in range(count)] == [3] * count
