"""A client that goes ends its request without a gRPC cancellation, which crashes Triton 2.51."""

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotrt.serve.front.triton_upstream import TritonUpstream


class Model(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Speaks Triton's protocol: an answer without end, until a `stop` with its id comes."""

    def __init__(self) -> None:
        self.num_ignored_stops = 0
        self.stops: list[str] = []
        self.whole: list[str] = []  # the calls that were not cancelled
        self._stopped: dict[str, threading.Event] = {}

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        [request] = requests
        if [tensor.name for tensor in request.inputs] == ["stop"]:
            self.stops.append(request.id)
            if len(self.stops) > self.num_ignored_stops:
                self._stopped[request.id].set()
            yield answer(text_output="")
            return
        stopped = self._stopped.setdefault(request.id, threading.Event())
        while not stopped.wait(0.02):
            yield answer(text_output="x")
        yield answer(text_output="", finish_reason="cancelled")
        self.whole.append(request.id)


def answer(**texts: str) -> Any:
    found = service_pb2.ModelStreamInferResponse()
    for name, text in texts.items():
        found.infer_response.outputs.add(name=name, datatype="BYTES", shape=[1])
        raw = struct.pack("<I", len(text)) + text.encode()
        found.infer_response.raw_output_contents.append(raw)
    return found


@pytest.fixture
def served() -> Iterator[tuple[Model, str]]:
    model = Model()
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield model, f"127.0.0.1:{port}"
    server.stop(None).wait()


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


def test_what_stops_by_itself_is_not_asked(served) -> None:
    model, address = served

    async def run() -> list[Any]:
        upstream = TritonUpstream(address, "llm")
        answers = upstream.generate({"text_input": "The"})
        found = [await anext(answers)]
        for stopped in model._stopped.values():
            stopped.set()
        found += [fields async for fields in answers]
        await until(lambda: model.whole)
        await upstream.close()
        return found

    assert asyncio.run(run())[-1]["final"]
    assert model.stops == []
