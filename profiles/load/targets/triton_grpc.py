"""A Triton server over gRPC, with NVIDIA's own client."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from grpc import StatusCode  # type: ignore[import-untyped, unused-ignore]
from grpc.aio import AioRpcError  # type: ignore[import-untyped, unused-ignore]
from tritonclient.grpc import InferResult
from tritonclient.utils import serialize_byte_tensor

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.load.exchange import Ending, Exchange
from nemotrt.profiles.load.prompts import Prompt, PromptMaker
from nemotrt.profiles.load.stamping_loop import arrival_s
from nemotrt.profiles.load.target import Target, TargetError
from nemotrt.profiles.load.targets.token_count import TokenCount
from nemotrt.profiles.load.targets.triton_model import InputTensor, TritonModel
from nemotrt.wire.triton.stream import StreamEndedError, TritonCalls, infer_request


class TritonGrpcTarget(Target):
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
        """
        self._address = address.rstrip("/")
        self._maker = maker
        self._extra = dict(extra or {})
        self._stall_timeout_s = stall_timeout_s
        metadata = [(name.lower(), value) for name, value in (headers or {}).items()]
        self._calls = TritonCalls(self._address, model, metadata, arrival_s)
        self._declared = TritonModel({})

    @property
    def facts(self) -> Mapping[str, str | int]:
        """Return the address."""
        model = self._calls.model_name
        facts = {"kind": "triton-grpc", "address": self._address, "model": model}
        return facts | self._maker.facts

    def prompt(self, index: int, isl: int) -> Prompt:
        """Return a text of `isl` tokens."""
        return self._maker.text(index, isl)

    async def open(self) -> None:
        """Connect, check that the model is ready, and learn what it takes."""
        try:
            is_ready = await self._calls.is_ready()
        except AioRpcError as error:
            raise EnvironmentUnfitError(
                f"nothing answers at {self._address}: {error.details()}. Start the server."
            ) from error
        if not is_ready:
            model = self._calls.model_name
            raise EnvironmentUnfitError(f"{self._address}: model {model!r} is not ready.")
        inputs = (await self._calls.declaration()).inputs
        self._declared = TritonModel(
            {tensor.name: InputTensor(tensor.datatype, len(tensor.shape)) for tensor in inputs}
        )

    async def send(self, prompt: Prompt, exchange: Exchange) -> None:
        """Stream one answer; left early, the request is stopped."""
        count = TokenCount(exchange, self._maker.tokenizer)
        request_id = uuid.uuid4().hex
        request = self._request(
            request_id, self._declared.values(prompt, exchange.osl, self._extra)
        )
        stream = self._calls.start(request, lambda: exchange.mark_sent(arrival_s()))
        is_over = False
        try:
            while not is_over:
                async with asyncio.timeout(self._stall_timeout_s):
                    arrived_s, answer = await stream.next()
                if answer.error_message:
                    is_over = True
                    what = f"the server answered an error: {answer.error_message}"
                    raise TargetError(what, Ending.SERVER_ERROR)
                _note(answer.infer_response, arrived_s, exchange, count)
                parameters = answer.infer_response.parameters
                is_over = parameters["triton_final_response"].bool_param
        except TimeoutError:
            what = f"the server sent nothing for {self._stall_timeout_s:g} s."
            raise TargetError(what, Ending.STALLED) from None
        except StreamEndedError:
            what = "the server ended the stream before the final response."
            raise TargetError(what, Ending.MALFORMED) from None
        except AioRpcError as error:
            is_refusal = error.code() is StatusCode.RESOURCE_EXHAUSTED
            ending = Ending.REFUSED if is_refusal else Ending.DISCONNECTED
            raise TargetError(f"the server broke off: {error.details()}.", ending) from error
        finally:
            stop = None
            if not is_over and "stop" in self._declared.inputs:
                stop = self._request(request_id, {"stop": True})
            elif not is_over:
                stream.cancel()
            self._calls.leave(stream, stop)
        count.settle()

    async def close(self) -> None:
        """Wait for the last calls to end, and disconnect."""
        await self._calls.ended()
        await self._calls.close()

    def _request(self, request_id: str, values: Mapping[str, Any]) -> Any:
        """Return the request of input tensors of one element each."""
        tensors = []
        for name, value in values.items():
            declared = self._declared.tensor(name, value)
            array = declared.array(value)
            is_text = declared.datatype == "BYTES"
            raw = serialize_byte_tensor(array).item() if is_text else array.tobytes()
            tensors.append((name, declared.datatype, array.shape, raw))
        request = infer_request(self._calls.model_name, request_id, tensors)
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        return request


def _note(response: Any, arrived_s: float, exchange: Exchange, count: TokenCount) -> None:
    """Count a response's tokens."""
    result = InferResult(response)
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
    if (num_cached_tokens := first("num_cached_tokens")) is not None:
        exchange.cached_tokens = int(num_cached_tokens)
    if (num_input_tokens := first("num_input_tokens")) is not None:
        count.num_input_tokens = int(num_input_tokens)
