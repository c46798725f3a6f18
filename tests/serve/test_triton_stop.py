"""A client that goes ends its request without a gRPC cancellation, which crashes Triton 2.51."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nemotrt.serve.front.upstream.triton_upstream import TritonUpstream, infer_request
from nemotrt.wire.triton.stream import TritonCalls
from support.endless_triton import EndlessModel, serving


@pytest.fixture
def served() -> Iterator[tuple[EndlessModel, str]]:
    model = EndlessModel()
    with serving(model) as address:
        yield model, address


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(4):  # less than the front waits before it cancels after all
        while not condition():
            await asyncio.sleep(0.01)


async def close_early(upstream: TritonUpstream) -> None:
    answers = upstream.generate({"text_input": "The"})
    assert (await anext(answers))["text_output"] == "x"
    await answers.aclose()


async def cancel_the_reader(upstream: TritonUpstream) -> None:
    async def read() -> None:
        async for _ in upstream.generate({"text_input": "The"}):
            pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


@pytest.mark.parametrize("num_ignored_stops", [0, 1], ids=["", "the-stop-overtakes"])
@pytest.mark.parametrize("leave", [close_early, cancel_the_reader])
def test_the_model_is_asked_to_stop(served, leave, num_ignored_stops) -> None:
    model, address = served
    model.num_ignored_stops = num_ignored_stops

    async def run() -> None:
        upstream = TritonUpstream(address, "llm")
        await leave(upstream)
        await until(lambda: model.whole)
        await upstream.close()

    asyncio.run(run())
    assert model.stops == model.whole * (1 + num_ignored_stops)


def test_a_model_that_refuses_to_stop_is_cancelled_and_not_asked_again(served) -> None:
    model, address = served
    model.refuses_stops = True

    async def run() -> None:
        calls = TritonCalls(address, "llm")
        stream = calls.start(infer_request("llm", {"text_input": "The"}, "7"))
        await stream.next()
        calls.leave(stream, infer_request("llm", {"stop": True}, "7"))
        async with asyncio.timeout(4):  # less than it waits before it cancels after all
            await calls.ended()
        await calls.close()

    asyncio.run(run())
    assert (model.stops, model.whole) == (["7"], [])


def test_what_stops_by_itself_is_not_asked(served) -> None:
    model, address = served

    async def run() -> list[Any]:
        upstream = TritonUpstream(address, "llm")
        answers = upstream.generate({"text_input": "The"})
        found = [await anext(answers)]
        for stopped in model.stopped.values():
            stopped.set()
        found += [fields async for fields in answers]
        await until(lambda: model.whole)
        await upstream.close()
        return found

    assert asyncio.run(run())[-1]["final"]
    assert model.stops == []
