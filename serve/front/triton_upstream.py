"""Requests over Triton's gRPC, a call a request; one that nobody waits for is stopped by its id."""

import asyncio
import struct
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import cached_property
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotrt.serve.front.upstream import Fields, UpstreamError, split_error
from nemotrt.serve.triton_model.tensors import INPUT_BY_NAME, OUTPUTS

MAX_MESSAGE_BYTES = 64 << 20
LENGTH = struct.Struct("<I")
FORMATS = {"INT32": "i", "FP32": "f", "UINT64": "Q", "BOOL": "?"}
IS_LIST = {spec.name: spec.is_list for spec in OUTPUTS}
READY_TIMEOUT_S = 2.0
END_TIMEOUT_S = 5.0
STOP_AGAIN_S = 0.2
Answers = asyncio.Queue[Any]  # ModelStreamInferResponse each, an UpstreamError at the end


class TritonUpstream:
    """One channel to one model."""

    def __init__(self, address: str, model_name: str) -> None:
        """Prepare; the channel belongs to the event loop of its first use."""
        self._address = address
        self._model_name = model_name
        self._background: set[asyncio.Task[None]] = set()

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
        call = self._stub.ModelStreamInfer(iter([request]))
        answers: Answers = asyncio.Queue()
        self._start(read_to_end(call, answers))
        is_final = False
        try:
            while not isinstance(answer := await answers.get(), UpstreamError):
                if answer.error_message:
                    is_final = True
                    raise split_error(answer.error_message)
                fields = output_fields(answer.infer_response)
                is_final = "finish_reason" in fields
                yield fields | {"final": is_final}
                if is_final:
                    return
            is_final = True
            raise answer
        finally:
            if not is_final:
                self._start(self._stop(call, request.id))
            cancel_later(call)

    async def _stop(self, call: Any, request_id: str) -> None:
        """Ask the model to end a request until its call has ended; the first may overtake it."""
        request = infer_request(self._model_name, {"stop": True})
        request.id = request_id
        while not call.done():
            await read_to_end(self._stub.ModelStreamInfer(iter([request]), timeout=END_TIMEOUT_S))
            await asyncio.sleep(STOP_AGAIN_S)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the background."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

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


async def read_to_end(call: Any, answers: Answers | None = None) -> None:
    """Put a call's responses, and the error in which it ends, into `answers`.

    It is a task of its own because grpc cancels a call whose reader is cancelled.
    """
    end = UpstreamError("engine_failed", "the server ended the stream before the answer did.")
    try:
        async for answer in call:
            if answers is not None:
                answers.put_nowait(answer)
    except grpc.aio.AioRpcError as error:
        end = UpstreamError("engine_unavailable", str(error.details()))
    finally:
        if answers is not None:
            answers.put_nowait(end)


def cancel_later(call: Any) -> None:
    """Cancel a call that has not ended in END_TIMEOUT_S, and by then should have.

    Triton 2.51 may crash when calls are cancelled (once in 27,000 requests of the storm in
    tests/serve; a race in its gRPC frontend, fixed upstream later), and a call that is cancelled
    after its last response costs it 2 KB for good (measured).
    """
    timer = asyncio.get_running_loop().call_later(END_TIMEOUT_S, call.cancel)
    call.add_done_callback(lambda _: timer.cancel())


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


_unpackers = {"BYTES": _strings, "INT32": _numbers("i"), "FP32": _numbers("f")}
