"""A server of Triton's protocol whose answers have no end, until a `stop` with their id comes."""

import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc


class EndlessModel(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Counts what it was asked; the first `num_ignored_stops` stops find no such request yet.

    A model that refuses stops answers each with an error.
    """

    def __init__(self, inputs: tuple[tuple[str, str], ...] = ()) -> None:
        self.inputs = inputs
        self.num_ignored_stops = 0
        self.refuses_stops = False
        self.stops: list[str] = []
        self.whole: list[str] = []  # the calls that were not cancelled
        self.stopped: dict[str, threading.Event] = {}

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        found = service_pb2.ModelMetadataResponse(name=request.name)
        for name, datatype in self.inputs:
            found.inputs.add(name=name, datatype=datatype, shape=[-1])
        return found

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        [request] = requests
        if [tensor.name for tensor in request.inputs] == ["stop"]:
            self.stops.append(request.id)
            if self.refuses_stops:
                yield service_pb2.ModelStreamInferResponse(error_message="no such input")
                return
            if len(self.stops) > self.num_ignored_stops:
                self.stopped[request.id].set()
            yield answer(text_output="")
            return
        stopped = self.stopped.setdefault(request.id, threading.Event())
        while not stopped.wait(0.02):
            yield answer(text_output="x")
        yield answer(text_output="", finish_reason="cancelled")
        self.whole.append(request.id)


def answer(**texts: str) -> Any:
    """Return a response of these texts."""
    found = service_pb2.ModelStreamInferResponse()
    for name, text in texts.items():
        found.infer_response.outputs.add(name=name, datatype="BYTES", shape=[1])
        raw = struct.pack("<I", len(text)) + text.encode()
        found.infer_response.raw_output_contents.append(raw)
    return found


@contextmanager
def serving(model: EndlessModel) -> Iterator[str]:
    """Serve a model; gives host:port."""
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()
