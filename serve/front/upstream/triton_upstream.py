"""Requests over Triton's gRPC, a call a request; one that nobody waits for is stopped by its id."""

import math
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]

from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError, split_error
from nemotrt.wire.tensors import INPUT_BY_NAME, OUTPUTS
from nemotrt.wire.trail import CURRENT
from nemotrt.wire.triton import stream as triton_stream
from nemotrt.wire.triton.stream import StreamEndedError, TritonCalls

LENGTH = struct.Struct("<I")
FORMATS = {"INT32": "i", "FP32": "f", "UINT64": "Q", "BOOL": "?"}
IS_LIST = {spec.name: spec.is_list for spec in OUTPUTS}
READY_TIMEOUT_S = 2.0
ENDED_EARLY = "the server ended the stream before the answer did."


class TritonUpstream:
    """One channel to one model."""

    def __init__(self, address: str, model_name: str) -> None:
        """Prepare; the channel belongs to the event loop of its first use."""
        self._calls = TritonCalls(address, model_name)

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        """Yield the model's responses; closing it early asks the model to stop the request."""
        trail = CURRENT.get()
        # A client's id may come twice, and `stop` is by this one, which Triton's log tells.
        model_name, request_id = self._calls.model_name, f"{trail.request_id}.{uuid.uuid4().hex}"
        request = infer_request(model_name, inputs, request_id)
        for name, text in trail.fields().items():
            request.parameters[name].string_param = text
        stream = self._calls.start(request)
        is_over = False
        try:
            while not is_over:
                _, answer = await stream.next()
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
            stop = None if is_over else infer_request(model_name, {"stop": True}, request_id)
            self._calls.leave(stream, stop)

    async def is_ready(self) -> bool:
        """Whether Triton says so; the engine process is asked elsewhere."""
        try:
            return await self._calls.is_ready(READY_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False

    async def close(self) -> None:
        """Close the channel and what runs on it."""
        await self._calls.close()


def infer_request(model_name: str, inputs: Fields, request_id: str = "") -> Any:
    """Return the protobuf request that carries `inputs`."""
    tensors = []
    for name, value in inputs.items():
        spec = INPUT_BY_NAME[name]
        values = list(value) if spec.is_list else [value]
        datatype = "BYTES" if spec.type == "STRING" else spec.type
        tensors.append((name, datatype, [len(values)], _packed(spec.type, values)))
    return triton_stream.infer_request(model_name, request_id, tensors)


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
