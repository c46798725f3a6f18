"""Requests over Triton's gRPC, a call a request; one that nobody waits for is stopped by its id."""

import asyncio
import math
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from functools import cached_property, partial
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError, split_error
from nemotrt.wire.tensors import INPUT_BY_NAME, OUTPUTS
from nemotrt.wire.triton_stream import Stop, StreamEndedError, TritonStream

MAX_MESSAGE_BYTES = 64 << 20
LENGTH = struct.Struct("<I")
FORMATS = {"INT32": "i", "FP32": "f", "UINT64": "Q", "BOOL": "?"}
IS_LIST = {spec.name: spec.is_list for spec in OUTPUTS}
READY_TIMEOUT_S = 2.0
ENDED_EARLY = "the server ended the stream before the answer did."
Stream = TritonStream[Any]  # of ModelStreamInferResponse


class TritonUpstream:
    """One channel to one model."""

    def __init__(self, address: str, model_name: str) -> None:
        """Prepare; the channel belongs to the event loop of its first use."""
        self._address = address
        self._model_name = model_name
        self._ending: set[asyncio.Task[None]] = set()

    @cached_property
    def _channel(self) -> Any:
        """The channel; it connects by itself, again and again."""
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        return grpc.aio.insecure_channel(self._address, options=options)

    @cached_property
    def _stub(self) -> Any:
        return service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        """Yield the model's responses; closing it early asks the model to stop the request."""
        request = infer_request(self._model_name, inputs)
        request.id = uuid.uuid4().hex
        stream = self._call(request)
        is_over = False
        try:
            while not is_over:
                answer = await stream.next()
                if answer.error_message:
                    is_over = True
                    raise split_error(answer.error_message)
                fields = output_fields(answer.infer_response)
                is_over = "finish_reason" in fields
                yield fields | {"final": is_over}
        except StreamEndedError:
            is_over = True
            raise UpstreamError("engine_failed", ENDED_EARLY) from None
        except grpc.aio.AioRpcError as error:
            is_over = True
            raise UpstreamError("engine_unavailable", str(error.details())) from error
        finally:
            self._leave(stream, None if is_over else partial(self._stop, request.id))

    def _call(self, request: Any) -> Stream:
        """Return the responses to one request."""
        call = self._stub.ModelStreamInfer(iter([request]))
        return TritonStream(call, call.cancel)

    async def _stop(self, request_id: str) -> bool:
        """Ask the model to end a request."""
        request = infer_request(self._model_name, {"stop": True})
        request.id = request_id
        stream = self._call(request)
        try:
            await stream.next()
        except (StreamEndedError, grpc.aio.AioRpcError):
            return False
        finally:
            self._leave(stream, None)
        return True

    def _leave(self, stream: Stream, stop: Stop | None) -> None:
        """Let a call end in the background."""
        task = asyncio.create_task(stream.end(stop))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def is_ready(self) -> bool:
        """Whether Triton says so; the engine process is asked elsewhere."""
        request = service_pb2.ModelReadyRequest(name=self._model_name)
        try:
            answer = await self._stub.ModelReady(request, timeout=READY_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def close(self) -> None:
        """Close the channel and what runs on it."""
        await self._channel.close()


def infer_request(model_name: str, inputs: Fields) -> Any:
    """Return the protobuf request that carries `inputs`."""
    request = service_pb2.ModelInferRequest(model_name=model_name)
    for name, value in inputs.items():
        spec = INPUT_BY_NAME[name]
        values = list(value) if spec.is_list else [value]
        datatype = "BYTES" if spec.type == "STRING" else spec.type
        request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        request.raw_input_contents.append(_packed(spec.type, values))
    return request


def output_fields(response: Any) -> Fields:
    """Return the response's tensors by name, as plain values."""
    fields: Fields = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        values = _unpackers[tensor.datatype](raw)
        if len(tensor.shape) == 2:
            width = tensor.shape[1]
            values = [values[i : i + width] for i in range(0, len(values), width)]
        fields[tensor.name] = values if IS_LIST[tensor.name] else values[0]
    return fields


def _packed(kind: str, values: list[Any]) -> bytes:
    """Return the raw bytes of a tensor."""
    if kind == "STRING":
        encoded = [value.encode() for value in values]
        return b"".join(LENGTH.pack(len(value)) + value for value in encoded)
    try:
        return struct.pack(f"<{len(values)}{FORMATS[kind]}", *values)
    except struct.error as error:
        raise UpstreamError("invalid_request", f"a number is out of range: {error}.") from error


def _strings(raw: bytes) -> list[Any]:
    """Return the strings of a BYTES tensor."""
    values, start = [], 0
    while start < len(raw):
        (size,) = LENGTH.unpack_from(raw, start)
        start += LENGTH.size
        values.append(raw[start : start + size].decode())
        start += size
    return values


def _numbers(code: str) -> Callable[[bytes], list[Any]]:
    """Return a reader of 4-byte numbers."""
    return lambda raw: list(struct.unpack(f"<{len(raw) // 4}{code}", raw))


def _reals(raw: bytes) -> list[float | None]:
    """Return the numbers of an FP32 tensor; NaN stands for one that the engine has not."""
    return [None if math.isnan(value) else value for value in _numbers("f")(raw)]


_unpackers = {"BYTES": _strings, "INT32": _numbers("i"), "FP32": _reals}
