"""One request of /v1/messages on its way through."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

from nemotrt.serve.front.doors.messages.blocks import Blocks
from nemotrt.serve.front.openai.chat_endpoint import ChatCall
from nemotrt.serve.front.upstream.upstream import Fields, Upstream

Json = dict[str, Any]
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessageCall:
    """A chat's answer as a message's blocks."""

    stream_end = b""

    def __init__(self, model: str, chat: ChatCall) -> None:
        """Take the chat."""
        self._chat = chat
        self._base = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }

    @property
    def inputs(self) -> list[Fields]:
        """The tensors of the chat."""
        return self._chat.inputs

    @inputs.setter
    def inputs(self, inputs: list[Fields]) -> None:
        self._chat.inputs = inputs

    async def chunks(self, upstream: Upstream) -> AsyncIterator[list[Json]]:
        """Yield the events of a streamed answer.

        Raises:
            ApiError: the request was refused or failed.
        """
        async for events, _ in self._events(upstream):
            yield events

    async def completion(self, upstream: Upstream) -> Json:
        """Return the whole message.

        Raises:
            ApiError: the request was refused or failed.
        """
        whole: Json = {}
        async for _, message in self._events(upstream):
            whole = message
        return whole

    async def _events(self, upstream: Upstream) -> AsyncIterator[tuple[list[Json], Json]]:
        """Yield the events, the last ones with the whole message."""
        blocks, reason, has_begun = Blocks(), "stop", False
        usage: Json = {}
        async for chunks in self._chat.chunks(upstream):
            events: list[Json] = []
            for chunk in chunks:
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    events += blocks.push(choice["delta"])
                    reason = choice["finish_reason"] or reason
            if not has_begun:
                has_begun = True
                start = self._message([], None, usage)
                events.insert(0, {"type": "message_start", "message": start})
            if events:
                yield events, {}
        ended = {"stop_reason": REASONS[reason], "stop_sequence": None}
        events = [*blocks.close()]
        events.append({"type": "message_delta", "delta": ended, "usage": _usage(usage)})
        yield [*events, {"type": "message_stop"}], self._message(blocks.blocks, ended, usage)

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
