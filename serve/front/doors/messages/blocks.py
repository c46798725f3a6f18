"""The content blocks of a message, made of a chat's deltas, with the events that tell of them."""

import json
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "text", "text": ""}
THINKING: Json = {"type": "thinking", "thinking": "", "signature": ""}
# Of each type: the field that grows, and its delta's type and field.
GROWS = {
    "text": ("text", "text_delta", "text"),
    "thinking": ("thinking", "thinking_delta", "thinking"),
    "tool_use": ("input", "input_json_delta", "partial_json"),
}
RAW = "raw_arguments"  # of an input that is no object


class Blocks:
    """The blocks so far; one is stopped before the next one starts."""

    def __init__(self) -> None:
        """Start with none."""
        self.blocks: list[Json] = []
        self._pieces: list[str] = []  # of the last block
        self._is_open = False

    def push(self, delta: Json) -> Iterator[Json]:
        """Add a delta of the chat; yield the events."""
        if trace := delta.get("reasoning_content"):
            yield from self._say(THINKING, trace)
        if content := delta.get("content"):
            yield from self._say(TEXT, content)
        for call in delta.get("tool_calls") or ():
            function = call["function"]
            if function.get("name") is not None:
                block = {"type": "tool_use", "id": call["id"], "name": function["name"]}
                yield from self._start({**block, "input": {}})
            yield from self._add(function["arguments"])

    def close(self) -> Iterator[Json]:
        """Stop the last block; an answer that says nothing at all is an empty text."""
        if all(block["type"] == "thinking" for block in self.blocks):
            yield from self._start(TEXT)
        yield from self._stop()

    def _say(self, kind: Json, text: str) -> Iterator[Json]:
        """Add text to a block of a kind."""
        if not self._is_open or self.blocks[-1]["type"] != kind["type"]:
            yield from self._start(kind)
        yield from self._add(text)

    def _start(self, block: Json) -> Iterator[Json]:
        yield from self._stop()
        self.blocks.append(dict(block))
        self._pieces, self._is_open = [], True
        yield self._event("start", content_block=dict(block))

    def _add(self, piece: str) -> Iterator[Json]:
        if piece:
            self._pieces.append(piece)
            _, kind, field = GROWS[self.blocks[-1]["type"]]
            yield self._event("delta", delta={"type": kind, field: piece})

    def _stop(self) -> Iterator[Json]:
        if self._is_open:
            block, text = self.blocks[-1], "".join(self._pieces)
            name = GROWS[block["type"]][0]
            block[name] = _input(text) if name == "input" else text
            self._is_open = False
            if block["type"] == "thinking":  # Anthropic's end with one; there is no key to sign by
                yield self._event("delta", delta={"type": "signature_delta", "signature": ""})
            yield self._event("stop")

    def _event(self, what: str, **more: Any) -> Json:
        return {"type": f"content_block_{what}", "index": len(self.blocks) - 1, **more}


def _input(arguments: str) -> Json:
    """Return a call's input, which must be an object; what the model wrote else is kept as it is.

    Only a call that no grammar held can be so.
    """
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {RAW: arguments}
    return found if isinstance(found, dict) else {RAW: arguments}
