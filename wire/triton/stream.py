"""Streamed calls to a Triton model that are ended without cancelling them, where it allows that."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import cached_property, partial
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]
from tritonclient.grpc import service_pb2, service_pb2_grpc

END_TIMEOUT_S = 5.0
STOP_AGAIN_S = 0.2
MAX_MESSAGE_BYTES = 64 << 20


class StreamEndedError(Exception):
    """The server ended the call."""


class TritonStream:
    """The responses of one call, read in a task of its own: a cancelled reader cancels its call.

    Triton 2.51 may crash when calls are cancelled (once in 27,000 requests of the storm in
    tests/serve; a race in its gRPC frontend, fixed upstream later), and a call that is cancelled
    after its last response costs it 2 KB for good (measured).
    """

    def __init__(self, call: Any, clock: Callable[[], float]) -> None:
        """Begin to read `call`; `clock` stamps what arrives."""
        self._call, self._clock = call, clock
        self._items: asyncio.Queue[tuple[float, Any] | Exception] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def next(self) -> tuple[float, Any]:
        """Return the next ModelStreamInferResponse and when it came.

        Raises:
            StreamEndedError: there are no more.
            grpc.aio.AioRpcError: the call broke off.
        """
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self) -> None:
        """Cancel the call, or do nothing if it has ended."""
        self._call.cancel()

    async def end(self, stop: Callable[[], Awaitable[bool]] | None) -> None:
        """Wait for the call's end, asking for it with `stop`; cancel it when that is no use.

        A stop may overtake its request, so it is sent again.
        """
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                while stop is not None and not self._reader.done():
                    if not await stop():
                        break
                    await asyncio.wait([self._reader], timeout=STOP_AGAIN_S)
                else:
                    await asyncio.wait([self._reader])
        except TimeoutError:
            pass
        finally:
            self.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        """Put what comes, and what ends it, into the queue."""
        end: Exception = StreamEndedError()
        try:
            async for response in self._call:
                self._items.put_nowait((self._clock(), response))
        except Exception as error:  # whoever takes it knows what it means
            end = error
        finally:
            self._items.put_nowait(end)  # whoever waits goes on, also when the call was cancelled


class TritonCalls:
    """Calls to one model over one channel, each with a stream of its own."""

    def __init__(
        self,
        address: str,
        model_name: str,
        headers: Iterable[tuple[str, str]] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepare; the channel belongs to the event loop of its first use."""
        self._address, self._headers, self._clock = address, tuple(headers), clock
        self.model_name = model_name
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

    async def is_ready(self, timeout_s: float | None = None) -> bool:
        """Whether Triton says that the model is; raises grpc.aio.AioRpcError."""
        request = service_pb2.ModelReadyRequest(name=self.model_name)
        answer = await self._stub.ModelReady(request, timeout=timeout_s, metadata=self._headers)
        return bool(answer.ready)

    async def declaration(self) -> Any:
        """Return the model's ModelMetadataResponse; raises grpc.aio.AioRpcError."""
        request = service_pb2.ModelMetadataRequest(name=self.model_name)
        return await self._stub.ModelMetadata(request, metadata=self._headers)

    def start(self, request: Any, note_sent: Callable[[], None] = lambda: None) -> TritonStream:
        """Return the responses to a ModelInferRequest; `note_sent` is called when it leaves."""

        async def requests() -> AsyncIterator[Any]:
            note_sent()
            yield request

        call = self._stub.ModelStreamInfer(requests(), metadata=self._headers)
        return TritonStream(call, self._clock)

    def leave(self, stream: TritonStream, stop: Any = None) -> None:
        """Let a call end in the background; `stop` is the request that asks the model for it."""
        ask = None if stop is None else partial(self._is_heeded, stop)
        task = asyncio.create_task(stream.end(ask))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _is_heeded(self, stop: Any) -> bool:
        """Ask the model to stop a request; False where it is no use to ask again."""
        stream = self.start(stop)
        try:
            _, answer = await stream.next()
        except (StreamEndedError, grpc.aio.AioRpcError):
            return False
        finally:
            self.leave(stream)
        return not answer.error_message

    async def ended(self) -> None:
        """Wait until every call that was left has ended."""
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def close(self) -> None:
        """Close the channel and what runs on it."""
        await self._channel.close()


def infer_request(
    model_name: str, request_id: str, tensors: Iterable[tuple[str, str, Iterable[int], bytes]]
) -> Any:
    """Return the ModelInferRequest of tensors: name, Triton's type, shape, raw bytes."""
    request = service_pb2.ModelInferRequest(model_name=model_name, id=request_id)
    for name, datatype, shape, raw in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    return request
