"""Which of a chat's scored tokens are its text's: neither the trace's nor a call's."""

import codecs
from typing import Any, NamedTuple

from nemotrt.engines.text.reasoning import TraceReader
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.serve.front.tools.tool_calls import ToolCallParser

Json = dict[str, Any]


class Scored(NamedTuple):
    """A token's entry in a chat's log-probabilities, and the bytes that it shows."""

    entry: Json
    shown: bytes


class TextScores:
    """Reads an answer a second time, token by token, by the chat's own readers.

    They tell what belongs to the text. A token belongs to it with any of its bytes.
    """

    def __init__(
        self, tokenizer: Tokenizer, splitter: TraceReader, parser: ToolCallParser | None
    ) -> None:
        """Take readers that nobody else pushes to."""
        self._tokenizer = tokenizer
        self._splitter = splitter
        self._parser = parser
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: list[Scored] = []  # what they hold back yet
        self._is_first = True

    def push(self, choice: Json) -> list[Json]:
        """Return the entries of the text, as far as a choice's part of a chunk settles them."""
        entries = (choice.get("logprobs") or {}).get("content", ())
        found: list[Json] = []
        for token, entry in zip(choice.get("token_ids", ()), entries, strict=False):
            shown = self._shown(token)
            self._waiting.append(Scored(entry, shown))
            found += self._read(self._decoder.decode(shown), is_last=False)
        if choice["finish_reason"] is not None:
            found += self._read("", is_last=True)
        return found

    def _shown(self, token: int) -> bytes:
        """Return what the answer's text has of a token."""
        if self._tokenizer.is_special(token):
            return b""
        shown = self._tokenizer.shown_bytes(token, is_first=self._is_first)
        self._is_first = False
        return shown

    def _read(self, piece: str, *, is_last: bool) -> list[Json]:
        """Return the entries of the text that a further piece settles."""
        split = self._splitter.push(piece)
        rest = self._splitter.flush() if is_last else None
        text = split.content + (rest.content if rest else "")
        is_other = bool(split.reasoning)
        if self._parser is not None:
            text, calls = self._parser.push(text)
            if is_last:
                more, further = self._parser.flush()
                text, calls = text + more, calls + further
            is_other = is_other or bool(calls)
        found = self._taken(text.encode()) if text else []
        if is_other and not text:
            self._waiting.clear()
        return found

    def _taken(self, text: bytes) -> list[Json]:
        """Return the entries of the text, which the tokens that wait end with, and keep the rest.

        What stands before it is no text: tags, and the white space beside them.
        """
        waiting, self._waiting = self._waiting, []
        start = b"".join(one.shown for one in waiting).rfind(text)
        end, place, found = start + len(text), 0, []
        for one in waiting:
            if place >= end:
                self._waiting.append(one)
            elif place + len(one.shown) > start:
                found.append(one.entry)
            place += len(one.shown)
        return found
