"""A Triton server over gRPC, with NVIDIA's own client."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from nemotrt import needs
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.load.exchange import Exchange
from nemotrt.profiles.load.prompts import Prompt, PromptMaker
from nemotrt.profiles.load.stamping_loop import arrival_s
from nemotrt.profiles.load.target import TargetError
from nemotrt.profiles.load.targets.token_count import TokenCount
from nemotrt.profiles.load.targets.triton_model import TritonModel, triton_model
from nemotrt.wire.triton_stream import Stop, StreamEndedError, TritonStream

Arrived = tuple[float, Any, Any]  # when it came, the result, the error


class TritonGrpcTarget:
    """Streams over ModelStreamInfer; one stream a request."""

    def __init__(
        self,
        address: str,
        maker: PromptMaker,
        *,
        model: str = "llm",
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        stall_timeout_s: float = 300.0,
    ) -> None:
        """Talk to `model` at host:port; `extra` are further inputs of every request.

        `headers` are gRPC metadata, whose names are lower case.

        Raises:
            EnvironmentUnfitError: tritonclient is not installed.
        """
        try:
            import tritonclient.grpc as sync
            import tritonclient.grpc.aio as grpc
            from grpc.aio import AioRpcError
        except ImportError as error:
            raise EnvironmentUnfitError(
                f"gRPC needs NVIDIA's client ({error}): {needs.TRITONCLIENT.cure}."
            ) from None
        self._grpc, self._sync, self._rpc_error = grpc, sync, AioRpcError
        self._address = address.rstrip("/")
        self._maker = maker
        self._model = model
        self._extra = dict(extra or {})
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._stall_timeout_s = stall_timeout_s
        self._client: Any = None
        self._declared = TritonModel({})
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def facts(self) -> Mapping[str, str | int]:
        """Return the address."""
        return {"kind": "triton-grpc", "address": self._address, "model": self._model}

    def prompt(self, index: int, isl: int) -> Prompt:
        """Return a text of `isl` tokens."""
        return self._maker.text(index, isl)

    async def open(self) -> None:
        """Connect, check that the model is ready, and learn what it takes."""
        self._client = self._grpc.InferenceServerClient(self._address)
        try:
            is_ready = await self._client.is_model_ready(self._model, headers=self._headers)
        except self._sync.InferenceServerException as error:
            raise EnvironmentUnfitError(
                f"nothing answers at {self._address}: {error.message()}. Start the server."
            ) from error
        if not is_ready:
            raise EnvironmentUnfitError(f"{self._address}: model {self._model!r} is not ready.")
        metadata = await self._client.get_model_metadata(
            self._model, headers=self._headers, as_json=True
        )
        self._declared = triton_model(metadata)

    async def send(self, prompt: Prompt, exchange: Exchange) -> None:
        """Stream one answer; left early, the request is stopped."""
        count = TokenCount(exchange)
        values = self._declared.values(prompt, exchange.osl, self._extra)
        request_id = uuid.uuid4().hex
        stream = self._call(request_id, values, lambda: exchange.mark_sent(arrival_s()))
        is_over = False
        try:
            while not is_over:
                async with asyncio.timeout(self._stall_timeout_s):
                    arrived_s, result, error = await stream.next()
                if error is not None:
                    is_over = True
                    raise TargetError(f"the server answered an error: {error}")
                response = result.get_response()
                _note(result, response, arrived_s, exchange, count)
                is_over = response.parameters["triton_final_response"].bool_param
        except TimeoutError:
            raise TargetError(f"the server sent nothing for {self._stall_timeout_s:g} s.") from None
        except StreamEndedError:
            raise TargetError("the server ended the stream before the final response.") from None
        except self._sync.InferenceServerException as error:
            raise TargetError(f"the server broke off: {error.message()}") from error
        except self._rpc_error as error:  # the client passes on what comes amid a stream
            raise TargetError(f"the server broke off: {error.details()}.") from error
        finally:
            self._leave(stream, None if is_over else self._stopper(request_id))
        count.settle()

    async def close(self) -> None:
        """Wait for the last calls to end, and disconnect."""
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def _call(
        self,
        request_id: str,
        values: Mapping[str, Any],
        note_sent: Callable[[], None] = lambda: None,
    ) -> TritonStream[Arrived]:
        """Return the responses to one request."""
        inputs = [self._tensor(name, value) for name, value in values.items()]

        async def requests() -> AsyncIterator[dict[str, Any]]:
            note_sent()
            yield {
                "model_name": self._model,
                "request_id": request_id,
                "inputs": inputs,
                "enable_empty_final_response": True,
            }

        answers = self._client.stream_infer(requests(), headers=self._headers)
        return TritonStream(_stamped(answers), answers.cancel)

    def _leave(self, stream: TritonStream[Arrived], stop: Stop | None) -> None:
        """Let a call end in the background."""
        task = asyncio.create_task(stream.end(stop))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _stopper(self, request_id: str) -> Stop:
        """Return what asks the model to end a request, in the words of NVIDIA's models and ours."""

        async def stop() -> bool:
            if "stop" not in self._declared.inputs:
                return False
            stream = self._call(request_id, {"stop": True})
            try:
                _, _, error = await stream.next()
            except (StreamEndedError, self._sync.InferenceServerException, self._rpc_error):
                return False
            finally:
                self._leave(stream, None)
            return error is None

        return stop

    def _tensor(self, name: str, value: Any) -> Any:
        """Return an input tensor of one element."""
        declared = self._declared.tensor(name, value)
        array = declared.array(value)
        tensor = self._sync.InferInput(name, list(array.shape), declared.datatype)
        tensor.set_data_from_numpy(array)
        return tensor


async def _stamped(answers: Any) -> AsyncIterator[Arrived]:
    """Yield tritonclient's (result, error) with the time of their arrival."""
    async for result, error in answers:
        yield arrival_s(), result, error


def _note(
    result: Any, response: Any, arrived_s: float, exchange: Exchange, count: TokenCount
) -> None:
    """Count a response's tokens."""
    names = {output.name for output in response.outputs}

    def first(name: str) -> Any:
        return result.as_numpy(name).reshape(-1)[0] if name in names else None

    reported, text = first("num_output_tokens"), first("text_output")
    count.add(
        arrived_s,
        (text or b"").decode(errors="replace"),
        None if reported is None else int(reported),
    )
    if (reason := first("finish_reason")) is not None:
        exchange.finish_reason = reason.decode()
    if (num_input_tokens := first("num_input_tokens")) is not None:
        count.num_input_tokens = int(num_input_tokens)
