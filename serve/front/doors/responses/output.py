"""The output items of a response, made of a chat's deltas, with the events that tell of them.

Events: as OpenAI orders them. An item is added, its text or arguments come in pieces, and it is
done before the next one is added.
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Json = dict[str, Any]


class TextKind(NamedTuple):
    """How an item with text is written: its own fields, its part, and the events of its pieces."""

    prefix: str
    own: Json
    part: Json
    event: str
    more: Json


ANSWER = TextKind(
    "msg",
    {"type": "message", "role": "assistant", "content": []},
    {"type": "output_text", "annotations": [], "logprobs": []},
    "response.output_text",
    {"logprobs": []},
)
TRACE = TextKind(
    "rs",
    {"type": "reasoning", "summary": [], "content": []},
    {"type": "reasoning_text"},
    "response.reasoning_text",
    {},
)


@dataclass(slots=True)
class OpenItem:
    """The item that is being written, and the pieces of its text or arguments."""

    item: Json
    place: Json  # what each of its events says of where it is
    kind: TextKind | None  # None: a call
    pieces: list[str] = field(default_factory=list)
    scores: list[Json] = field(default_factory=list)


class Output:
    """The items so far."""

    def __init__(self) -> None:
        """Start with none."""
        self.items: list[Json] = []
        self._open: OpenItem | None = None
        self._scores: list[Json] = []  # of text that is still to come

    def push(self, delta: Json, scores: Iterable[Json] = ()) -> Iterator[Json]:
        """Add a delta of the chat, and the log-probabilities of its text; yield the events."""
        self._scores += scores
        if trace := delta.get("reasoning_content"):
            yield from self._say(TRACE, trace)
        if content := delta.get("content"):
            yield from self._say(ANSWER, content)
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)

    def close(self, reason: str) -> Iterator[Json]:
        """End the last item; an answer that says nothing at all is an empty text."""
        is_cut_call = reason == "stop" and self._open is not None and self._open.kind is None
        is_whole = reason != "length" and not is_cut_call
        if is_whole and all(item["type"] == "reasoning" for item in self._all()):
            yield from self._say(ANSWER, "")
        yield from self._end("completed" if is_whole else "incomplete")

    def _all(self) -> list[Json]:
        return self.items + ([self._open.item] if self._open else [])

    def _say(self, kind: TextKind, text: str) -> Iterator[Json]:
        """Add text to an item of a kind."""
        if self._open is None or self._open.kind is not kind:
            yield from self._begin({"id": _name(kind.prefix), **kind.own}, kind)
            part = {"part": {**kind.part, "text": ""}}
            yield self._event("response.content_part.added", content_index=0, **part)
        yield from self._add(text, kind.event, content_index=0, **self._scored(kind))

    def _scored(self, kind: TextKind) -> Json:
        """Return what a further piece of text has beside it."""
        assert self._open is not None  # an item has begun
        if not (kind.more and self._scores):
            return kind.more
        scores, self._scores = self._scores, []
        self._open.scores += scores
        return {"logprobs": scores}

    def _call(self, call: Json) -> Iterator[Json]:
        """Add to a call; the first delta of one has its name."""
        function = call["function"]
        if function.get("name") is not None:
            item = {"id": _name("fc"), "type": "function_call", "call_id": call["id"]}
            yield from self._begin({**item, "name": function["name"], "arguments": ""}, None)
        yield from self._add(function["arguments"], "response.function_call_arguments")

    def _begin(self, item: Json, kind: TextKind | None) -> Iterator[Json]:
        """End the item before, and add the next one."""
        yield from self._end("completed")
        item["status"] = "in_progress"
        place = {"item_id": item["id"], "output_index": len(self.items)}
        self._open = OpenItem(item, place, kind)
        yield _item_event("added", item, place)

    def _add(self, piece: str, event: str, **more: Any) -> Iterator[Json]:
        assert self._open is not None  # an item has begun
        if piece:
            self._open.pieces.append(piece)
            yield self._event(f"{event}.delta", delta=piece, **more)

    def _end(self, status: str) -> Iterator[Json]:
        """Finish the open item."""
        if self._open is None:
            return
        item, kind, text = self._open.item, self._open.kind, "".join(self._open.pieces)
        if kind is None:
            done = {"name": item["name"], "arguments": text}
            yield self._event("response.function_call_arguments.done", **done)
            whole: Json = {"arguments": text}
        else:
            more = {name: self._open.scores for name in kind.more}
            part = {**kind.part, "text": text, **more}
            yield self._event(f"{kind.event}.done", content_index=0, text=text, **more)
            yield self._event("response.content_part.done", content_index=0, part=part)
            whole = {"content": [part]}
        item = {**item, **whole, "status": status}
        yield _item_event("done", item, self._open.place)
        self.items.append(item)
        self._open = None

    def _event(self, kind: str, **more: Any) -> Json:
        assert self._open is not None  # an item has begun
        return {"type": kind, **self._open.place, **more}


def _item_event(what: str, item: Json, place: Json) -> Json:
    index = place["output_index"]
    return {"type": f"response.output_item.{what}", "output_index": index, "item": dict(item)}


def _name(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"
