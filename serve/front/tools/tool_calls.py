"""Parses a family's tool calls while they come: objects or elements between its tags.

A call's name goes out as soon as it is known to be one, its arguments as they come. What turns out
not to be a call is handed back as content: nothing is ever lost. White space before a block of
calls, and after it where nothing else follows, belongs to the format. How the text was cut makes
no difference.

As lenient with objects as NVIDIA's own parser, nemotron_toolcall_parser_no_streaming.py of the
model's repository: one object without a list, a missing bracket, keys in any order, no arguments.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from nemotrt.engines.model.families import CallFormat, XmlCall
from nemotrt.engines.text.hold_back import ANY_SPACE, HoldBack
from nemotrt.serve.front.tools.call_element import CallElement
from nemotrt.serve.front.tools.call_object import CallObject
from nemotrt.serve.front.tools.json_reader import SPACE, Status

BETWEEN = frozenset(SPACE + ",[]}")  # what may stand between the objects of a block


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What a piece of text added to a tool call; the first of a call has its name and id."""

    index: int
    arguments: str = ""
    name: str | None = None
    call_id: str | None = None


class ToolCallParser:
    """Separates content from tool calls; feed it the answer without its reasoning."""

    def __init__(
        self,
        calls: CallFormat,
        max_calls: int | None = None,
        functions: Mapping[str, Any] | None = None,
    ) -> None:
        """Start outside of a block of calls.

        Args:
            calls: the model's format.
            max_calls: what follows this call is left out.
            functions: the schema of each function's arguments, which tells of strings where the
                format does not; None: nothing is known.
        """
        self.num_calls = 0  # that have ended
        self.is_cut = False  # the text has ended within the last call's arguments
        self._tags, self._max_calls = calls.tags, max_calls
        self._opener, self._starts, self._filler = "{", "[{", BETWEEN
        self._new: Callable[[], CallObject | CallElement] = CallObject
        if isinstance(calls.call, XmlCall):
            self._opener, self._starts = calls.call.function.open, calls.call.function.open[0]
            self._filler = frozenset(SPACE)
            self._new = partial(CallElement, calls.call, calls.tags.close, functions or {})
        self._read: Callable[[str, int], int] = self._outside
        self._hold = HoldBack((calls.tags.open,), ANY_SPACE)  # of the text outside of blocks
        self._raw: list[str] = []  # of the block since its last call, in case it is no call
        self._has_calls = False  # the block, or the last one where only space has followed it
        self._mark = ""  # what begins a call or closes the block, as far as it has come
        self._call_read = self._new()
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
            self.is_cut = self._call_read.is_cut
            self._call_read.flush()
            self._hand_over()
        elif self._has_calls and self._tags.close.startswith(self._mark):
            self._raw, self._mark = [], ""
        if self._read != self._outside:
            self._give_up()
        rest = self._hold.flush()
        self._show("" if self._has_calls and rest.isspace() else rest)
        return self._collect()

    def _collect(self) -> tuple[str, list[CallDelta]]:
        content, deltas = "".join(self._content), self._deltas
        self._content, self._deltas = [], []
        return content, deltas

    def _show(self, text: str) -> None:
        """Pass on content."""
        if text:
            self._content.append(text)
            self._has_calls = False

    def _outside(self, text: str, position: int) -> int:
        """Pass content on up to a block."""
        body, end = self._hold.push(text, position)
        self._show(body)
        if end is None:
            return len(text)
        self._read, self._raw, self._has_calls = self._block_start, [self._tags.open], False
        return end

    def _block_start(self, text: str, position: int) -> int:
        character = text[position]
        if character not in SPACE:
            self._read = self._between
            if character not in self._starts:
                return self._give_up(position)
        if character != self._opener[0]:
            self._raw.append(character)
            position += 1
        return position

    def _between(self, text: str, position: int) -> int:
        """Find the next call or the block's end."""
        character = text[position]
        if character in (self._opener[0], self._tags.close[0]):
            self._read = self._begin_or_close
            return position
        if character not in self._filler:
            return self._give_up(position)
        self._raw.append(character)
        if character == "]" and self._has_calls:
            self._raw = []
        return position + 1

    def _begin_or_close(self, text: str, position: int) -> int:
        """Read what begins a call, or the closing tag."""
        seen = self._mark + text[position]
        if seen == self._opener:
            self._call_read, self._is_announced, self._read = self._new(), False, self._call
            self._raw.append(seen)
            self._mark = ""
        elif seen == self._tags.close:
            self._raw = [] if self._has_calls else [*self._raw, seen]
            self._mark = ""
            self._give_up()
        elif self._opener.startswith(seen) or self._tags.close.startswith(seen):
            self._mark = seen
        else:
            return self._give_up(position)
        return position + 1

    def _call(self, text: str, position: int) -> int:
        """Read a call; if it breaks off after its name has gone out, what follows it goes on."""
        call = self._call_read
        end = call.push(text, position)
        self._raw.append(text[position:end])
        self._hand_over()
        if call.status is Status.OPEN:
            return end
        if not self._is_announced:
            return self._give_up(end)
        self.num_calls += 1
        self._read = self._between
        if call.rest or call.has_closed_block:
            self._raw = [call.rest]
            return self._give_up(end)
        return end

    def _hand_over(self) -> None:
        """Hand over what is new of a call."""
        call = self._call_read
        if not call.is_call:
            return
        if not self._is_announced:
            self._is_announced = self._has_calls = True
            self._hold.flush()  # white space before the block
            call_id = f"call_{secrets.token_hex(12)}"
            self._deltas.append(CallDelta(self.num_calls, name=call.name, call_id=call_id))
        self._raw = []
        if arguments := call.take():
            self._deltas.append(CallDelta(self.num_calls, arguments))

    def _give_up(self, position: int = 0) -> int:
        """Leave the block; hand back what has been read of something that is no call."""
        raw = "".join((*self._raw, self._mark))  # its end may open another block
        self._raw, self._mark, self._read = [], "", self._outside
        self._show(self._hold.push(raw, counts=False)[0])
        return position
