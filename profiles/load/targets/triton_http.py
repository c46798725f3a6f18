"""A Triton server's generate_stream endpoint."""

import json
from collections.abc import Mapping
from typing import Any

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.load.exchange import Ending, Exchange
from nemotrt.profiles.load.http.event_parser import EventParser
from nemotrt.profiles.load.http.http_client import HttpClient
from nemotrt.profiles.load.prompts import Prompt, PromptMaker
from nemotrt.profiles.load.target import Target, TargetError
from nemotrt.profiles.load.targets.token_count import TokenCount
from nemotrt.profiles.load.targets.triton_model import InputTensor, TritonModel


class TritonHttpTarget(Target):
    """Posts to /v2/models/MODEL/generate_stream, with the tensor names of NVIDIA's frontends."""

    def __init__(
        self,
        client: HttpClient,
        maker: PromptMaker,
        *,
        model: str = "llm",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Talk to `model` through `client`; `extra` are further inputs of every request."""
        self._client = client
        self._maker = maker
        self._model = model
        self._extra = dict(extra or {})
        self._declared = TritonModel({})

    @property
    def facts(self) -> Mapping[str, str | int]:
        """Return the address."""
        facts = {"kind": "triton-http", "address": self._client.url, "model": self._model}
        return facts | self._maker.facts

    def prompt(self, index: int, isl: int) -> Prompt:
        """Return a text of `isl` tokens."""
        return self._maker.text(index, isl)

    async def open(self) -> None:
        """Check that the model is ready, and learn what it takes."""
        await check_answers(self._client, f"/v2/models/{self._model}/ready")
        metadata = await check_answers(self._client, f"/v2/models/{self._model}")
        self._declared = TritonModel(
            {
                str(tensor["name"]): InputTensor(str(tensor["datatype"]), len(tensor["shape"]))
                for tensor in json.loads(metadata).get("inputs", ())
            }
        )

    async def send(self, prompt: Prompt, exchange: Exchange) -> None:
        """Stream one answer."""
        stream, count = EventParser(), TokenCount(exchange, self._maker.tokenizer)

        def take(arrived_s: float, piece: bytes) -> None:
            for data in stream.feed(piece):
                event = parse_event(data)
                count.add(
                    arrived_s,
                    _only(event.get("text_output"), str) or "",
                    _only(event.get("num_output_tokens"), int),
                )
                if "finish_reason" in event:
                    exchange.finish_reason = _only(event["finish_reason"], str) or ""
                if "num_cached_tokens" in event:
                    exchange.cached_tokens = _only(event["num_cached_tokens"], int)
                if "num_input_tokens" in event:
                    count.num_input_tokens = _only(event["num_input_tokens"], int)

        await self._client.post(
            f"/v2/models/{self._model}/generate_stream",
            self._declared.values(prompt, exchange.osl, self._extra),
            take,
            exchange.mark_sent,
        )
        if stream.is_broken_off:
            raise TargetError("the server's last event is not complete.", Ending.MALFORMED)
        count.settle()

    async def close(self) -> None:
        """Hang up."""
        self._client.close()


async def check_answers(client: HttpClient, path: str) -> bytes:
    """Return what a GET of `path` brings; raise EnvironmentUnfitError unless that is 200."""
    try:
        status, body = await client.get(path)
    except TargetError as error:
        raise EnvironmentUnfitError(f"{client.url} does not answer: {error.message}") from error
    if status != 200:
        text = body.decode(errors="replace")[:200] or "not ready"
        raise EnvironmentUnfitError(f"{client.url}{path} answered {status}: {text}.")
    return body


def parse_event(data: bytes) -> dict[str, Any]:
    """Return an event's JSON object; raises TargetError if it is none, or an error."""
    try:
        value = json.loads(data)
    except ValueError as error:
        what = f"the server sent an event that is not JSON: {error}."
        raise TargetError(what, Ending.MALFORMED) from error
    if not isinstance(value, dict):
        what = f"the server sent {data[:80]!r} where an object belongs."
        raise TargetError(what, Ending.MALFORMED)
    # vLLM up to 0.9 streams {"object": "error", "message": ...}
    if value.get("error") or value.get("object") == "error":
        said = value.get("error") or value.get("message") or value
        raise TargetError(f"the server answered an error: {said}.", Ending.SERVER_ERROR)
    return value


def _only(value: Any, kind: type) -> Any:
    """Return a tensor's only element if it is a `kind`, else None."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, kind) else None
