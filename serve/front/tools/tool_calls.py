"""Parses `<TOOLCALL>[{"name": ..., "arguments": ...}, ...]</TOOLCALL>` while it comes.

A call's name goes out as soon as it is known to be one, its arguments as they come. What turns out
not to be a call is handed back as content: nothing is ever lost. White space before a block of
calls, and after it where nothing else follows, belongs to the format. How the text was cut makes
no difference.

As lenient as NVIDIA's own parser, nemotron_toolcall_parser_no_streaming.py of the model's
repository: one object without a list, a missing bracket, keys in any order, no arguments.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from nemotrt.serve.front.tools.call_object import CallObject
from nemotrt.serve.front.tools.json_reader import SPACE, Status

OPEN = "<TOOLCALL>"
CLOSE = "</TOOLCALL>"
BETWEEN = frozenset(SPACE + ",[]}")  # what may stand between the calls of a block


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What a piece of text added to a tool call; the first of a call has its name and id."""

    index: int
    arguments: str = ""
    name: str | None = None
    call_id: str | None = None


class ToolCallParser:
    """Separates content from tool calls; feed it the answer without its reasoning."""

    def __init__(self, max_calls: int | None = None) -> None:
        """Start outside of a block of calls; what follows the call `max_calls` is left out."""
        self.num_calls = 0  # that have ended
        self._max_calls = max_calls
        self._read: Callable[[str, int], int] = self._outside
        self._matched = 0  # characters of the tag under way
        self._space: list[str] = []  # white space that may stand before a block
        self._raw: list[str] = []  # of the block since its last call, in case it is no call
        self._has_calls = False  # the block, or the last one where only space has followed it
        self._object = CallObject()
        self._is_announced = False
        self._content: list[str] = []
        self._deltas: list[CallDelta] = []

    @property
    def is_full(self) -> bool:
        """Whether the last call that is wanted has ended."""
        return self.num_calls == self._max_calls

    def push(self, text: str) -> tuple[str, list[CallDelta]]:
        """Add a piece; return the content and the tool-call parts that it completed."""
        position = 0
        while position < len(text) and not self.is_full:
            position = self._read(text, position)
        return self._collect()

    def flush(self) -> tuple[str, list[CallDelta]]:
        """Return what is held, once no more text comes; a broken call comes as it is."""
        if self._read == self._call:
            self._object.flush()
            self._hand_over()
        elif self._read != self._outside:
            self._raw = [] if self._has_calls else [*self._raw, CLOSE[: self._matched]]
            self._matched = 0
        if self._read != self._outside:
            self._give_up()
        self._show(OPEN[: self._matched])
        if not self._has_calls:
            self._content += self._space
        self._matched, self._space = 0, []
        return self._collect()

    def _collect(self) -> tuple[str, list[CallDelta]]:
        content, deltas = "".join(self._content), self._deltas
        self._content, self._deltas = [], []
        return content, deltas

    def _show(self, text: str) -> None:
        """Pass on content, and the white space before it."""
        if text:
            self._content += [*self._space, text]
            self._space, self._has_calls = [], False

    def _show_but_space(self, text: str) -> None:
        """Pass on content; the white space at its end waits for what follows."""
        body = text.rstrip()
        self._show(body)
        self._space.append(text[len(body) :])

    def _outside(self, text: str, position: int) -> int:
        """Pass content on up to a block."""
        if text[position] == OPEN[self._matched]:
            self._matched += 1
            if self._matched == len(OPEN):
                self._matched, self._has_calls, self._raw = 0, False, [OPEN]
                self._read = self._block_start
            return position + 1
        if self._matched:
            self._show(OPEN[: self._matched])
            self._matched = 0
            return position
        end = text.find(OPEN[0], position)
        end = len(text) if end < 0 else end
        self._show_but_space(text[position:end])
        return end

    def _block_start(self, text: str, position: int) -> int:
        character = text[position]
        if character not in SPACE:
            self._read = self._between
            if character not in "[{":
                return self._give_up(position)
        if character != "{":
            self._raw.append(character)
            position += 1
        return position

    def _between(self, text: str, position: int) -> int:
        """Find the next call or the block's end."""
        character = text[position]
        if character == "{":
            self._object, self._is_announced, self._read = CallObject(), False, self._call
            self._raw.append(character)
            return position + 1
        if character == CLOSE[0]:
            self._read = self._closing
            return position
        if character not in BETWEEN:
            return self._give_up(position)
        self._raw.append(character)
        if character == "]" and self._has_calls:
            self._raw = []
        return position + 1

    def _call(self, text: str, position: int) -> int:
        """Read a call; if it breaks off after its name has gone out, what follows it goes on."""
        end = self._object.push(text, position)
        self._raw.append(text[position:end])
        self._hand_over()
        if self._object.status is Status.OPEN:
            return end
        if not self._is_announced:
            return self._give_up(end)
        self.num_calls += 1
        self._read = self._between
        return end

    def _hand_over(self) -> None:
        """Hand over what is new of a call."""
        call = self._object
        if not call.is_call:
            return
        if not self._is_announced:
            self._is_announced = self._has_calls = True
            self._space = []
            call_id = f"call_{secrets.token_hex(12)}"
            self._deltas.append(CallDelta(self.num_calls, name=call.name, call_id=call_id))
        self._raw = []
        if arguments := call.take():
            self._deltas.append(CallDelta(self.num_calls, arguments))

    def _closing(self, text: str, position: int) -> int:
        """Read the closing tag."""
        if text[position] == CLOSE[self._matched]:
            self._matched += 1
            if self._matched == len(CLOSE):
                self._matched = 0
                self._raw = [] if self._has_calls else [*self._raw, CLOSE]
                self._give_up()
            return position + 1
        matched, self._matched = self._matched, 0
        if matched == 1:  # it may open another block
            self._give_up()
            self._matched = 1
            return position
        self._raw.append(CLOSE[:matched])
        return self._give_up(position)

    def _give_up(self, position: int = 0) -> int:
        """Leave the block; hand back what has been read of something that is no call."""
        raw, self._raw = "".join(self._raw), []
        self._show_but_space(raw)
        self._read = self._outside
        return position
