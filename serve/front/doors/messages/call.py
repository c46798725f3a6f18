"""One request of /v1/messages on its way through."""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

from nemotrt.serve.front.doors.messages.blocks import Blocks
from nemotrt.serve.front.doors.messages.conversation import NAMES
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.chat_endpoint import ChatCall, ChatDoor
from nemotrt.serve.front.upstream.upstream import Upstream

Json = dict[str, Any]
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessageCall(ChatDoor):
    """A chat's answer as a message's blocks."""

    def __init__(self, chat: ChatCall, stops: Sequence[str] = ()) -> None:
        """Take the chat; its text ends with the one of `stops` that ended it."""
        super().__init__(chat)
        self._stops = tuple(stop for stop in stops if stop)
        self._base = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": chat.model,
        }

    async def chunks(self, upstream: Upstream) -> AsyncIterator[list[Json]]:
        """Yield the events of a streamed answer.

        Raises:
            ApiError: the request was refused or failed.
        """
        try:
            async for events, _ in self._events(upstream):
                yield events
        except ApiError as error:
            raise error.renamed(NAMES) from error

    async def completion(self, upstream: Upstream) -> Json:
        """Return the whole message.

        Raises:
            ApiError: the request was refused or failed.
        """
        whole: Json = {}
        try:
            async for _, message in self._events(upstream):
                whole = message
        except ApiError as error:
            raise error.renamed(NAMES) from error
        return whole

    async def _events(self, upstream: Upstream) -> AsyncIterator[tuple[list[Json], Json]]:
        """Yield the events, the last ones with the whole message."""
        blocks, reason, has_begun = Blocks(), "stop", False
        usage: Json = {}
        stop: str | None = None
        async for chunks in self._chat.chunks(upstream):
            events: list[Json] = []
            choices = [choice for chunk in chunks for choice in chunk["choices"]]
            if choices and choices[-1]["finish_reason"] == "stop":
                stop = self._take_stop(choices)
            for choice in choices:
                events += blocks.push(choice["delta"])
                reason = choice["finish_reason"] or reason
            usage = next((c["usage"] for c in reversed(chunks) if c.get("usage")), usage)
            if not has_begun:
                has_begun = True
                start = self._message([], None, usage)
                events.insert(0, {"type": "message_start", "message": start})
            if events:
                yield events, {}
        why = REASONS[reason] if stop is None else "stop_sequence"
        ended = {"stop_reason": why, "stop_sequence": stop}
        events = [*blocks.close()]
        events.append({"type": "message_delta", "delta": ended, "usage": _usage(usage)})
        yield [*events, {"type": "message_stop"}], self._message(blocks.blocks, ended, usage)

    def _take_stop(self, choices: list[Json]) -> str | None:
        """Take the stop sequence off the answer's last text; return it, None where none ended it.

        It is whole there: the engine holds it back until it is sure of it. No other text can end
        so, since it would have ended there.
        """
        for choice in reversed(choices):
            delta, name = choice["delta"], "content"
            if calls := delta.get("tool_calls"):  # it has cut a call
                delta, name = calls[-1]["function"], "arguments"
            if text := delta.get(name):
                found = [stop for stop in self._stops if text.endswith(stop)]
                stop = max(found, key=len, default=None)
                delta[name] = text.removesuffix(stop or "")
                return stop
        return None

    def _message(self, blocks: list[Json], ended: Json | None, usage: Json) -> Json:
        told = ended or {"stop_reason": None, "stop_sequence": None}
        return {**self._base, "content": blocks, **told, "usage": _usage(usage)}


def _usage(usage: Json) -> Json:
    """Return a chat's counts by Anthropic's names; there cached tokens are not among the input."""
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens")
    counts = {
        "input_tokens": usage.get("prompt_tokens", 0) - (cached or 0),
        "output_tokens": usage.get("completion_tokens", 0),
    }
    return counts if cached is None else {**counts, "cache_read_input_tokens": cached}
