"""One request of /v1/responses on its way through."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from nemotrt.serve.front.doors.responses.conversation import NAMES
from nemotrt.serve.front.doors.responses.kept import Kept
from nemotrt.serve.front.doors.responses.output import Output
from nemotrt.serve.front.doors.responses.text_scores import TextScores
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.chat_endpoint import ChatCall, ChatDoor
from nemotrt.serve.front.schema.responses import ResponsesRequest
from nemotrt.serve.front.upstream.upstream import Upstream
from nemotrt.wire.request import DEFAULTS

Json = dict[str, Any]
FAILED = "server_error"
DEFAULT_FORMAT: Json = {"format": {"type": "text"}}


class ResponseCall(ChatDoor):
    """A chat's answer as a response's items."""

    def __init__(self, body: ResponsesRequest, chat: ChatCall, items: list[Json]) -> None:
        """Take the chat, and the `items` of the whole conversation."""
        super().__init__(chat)
        self._items = items
        self.must_keep = body.store is True
        self._may_keep = body.store is not False
        self._is_scored = body.is_scored
        self._put: Callable[[str, Kept], None] | None = None
        self._base = _base(body, chat)

    def keep_by(self, put: Callable[[str, Kept], None]) -> None:
        """Have the response kept by `put` once it is whole, unless it is not to be."""
        if self._may_keep:
            self._put = put
            self._base["store"] = True

    async def chunks(self, upstream: Upstream) -> AsyncIterator[list[Json]]:
        """Yield the events of a streamed answer, which tell of a failure once they have begun.

        Raises:
            ApiError: the request was refused.
        """
        number = 0
        async for events in self._events(upstream):
            yield [{**event, "sequence_number": number + i} for i, event in enumerate(events)]
            number += len(events)

    async def completion(self, upstream: Upstream) -> Json:
        """Return the whole response.

        Raises:
            ApiError: the request was refused or failed.
        """
        response: Json = {}
        async for events in self._events(upstream, is_whole=True):
            response = events[-1].get("response", {})
        return response

    async def _events(
        self, upstream: Upstream, *, is_whole: bool = False
    ) -> AsyncIterator[list[Json]]:
        """Yield the events; the last one has the finished response."""
        output, usage, reason = Output(), None, "stop"
        scores = self._text_scores()
        head = [
            {"type": f"response.{what}", "response": self._response("in_progress", [], None)}
            for what in ("created", "in_progress")
        ]
        try:
            async for chunks in self._chat.chunks(upstream):
                events: list[Json] = []
                for chunk in chunks:
                    usage = chunk.get("usage") or usage
                    for choice in chunk["choices"]:
                        scored = scores.push(choice) if scores else ()
                        events += output.push(choice["delta"], scored)
                        reason = choice["finish_reason"] or reason
                if head or events:
                    yield [*head, *events]
                    head = []
        except ApiError as error:
            error = error.renamed(NAMES)
            if head or is_whole:
                raise error from None
            yield [self._failed(error, output)]
            return
        events = [*output.close(reason)]
        yield [*events, self._done(output, usage, reason)]

    def _text_scores(self) -> TextScores | None:
        """Return what tells the text's scored tokens, None where none is scored."""
        tokenizer = self._chat.tokenizer
        if not self._is_scored or tokenizer is None:
            return None
        return TextScores(tokenizer, *self._chat.readers())

    def _done(self, output: Output, usage: Json | None, reason: str) -> Json:
        """Return the last event, and keep the response where it is to be."""
        status = "incomplete" if reason == "length" else "completed"
        response = self._response(status, output.items, usage)
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        response["completed_at"] = int(time.time())
        if self._put is not None:
            items = self._items + output.items
            self._put(response["id"], Kept(_bytes(response), _bytes(items)))
        return {"type": f"response.{status}", "response": response}

    def _failed(self, error: ApiError, output: Output) -> Json:
        response = self._response("failed", output.items, None)
        details = {"error_code": error.code}  # OpenAI's own codes are a closed list
        response["error"] = {"code": FAILED, "message": error.message, "details": details}
        return {"type": "response.failed", "response": response}

    def _response(self, status: str, items: list[Json], usage: Json | None) -> Json:
        told = None if usage is None else _usage(usage)
        return {**self._base, "status": status, "output": list(items), "usage": told}


def _base(body: ResponsesRequest, chat: ChatCall) -> Json:
    """Return what every response says of its request."""
    inputs = chat.inputs[0]
    told = body.model_dump(
        exclude_none=True, by_alias=True, include={"tools", "tool_choice", "text", "reasoning"}
    )
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": chat.model,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": None, "summary": None, **told.get("reasoning", {})},
        "service_tier": "default",
        "store": False,
        "temperature": inputs.get("temperature", 1.0),
        "text": told.get("text") or DEFAULT_FORMAT,
        "tool_choice": told.get("tool_choice", "auto"),
        "tools": told.get("tools", []),
        "top_logprobs": body.top_logprobs or 0,
        "top_p": inputs.get("top_p", DEFAULTS["top_p"]),
        "truncation": "disabled",
        "user": body.user,
    }


def _usage(usage: Json) -> Json:
    """Return a chat's counts by their names here; where no prefix is kept, none was used.

    Clients' types ask for each; no token is charged as one that is written to a cache.
    """
    prompt, answer = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cached = {"cached_tokens": (prompt or {}).get("cached_tokens", 0), "cache_write_tokens": 0}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": cached,
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": (answer or {}).get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }


def _bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
