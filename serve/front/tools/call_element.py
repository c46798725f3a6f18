"""Reads one tool call, an element with an element in it for each argument, while it comes.

Its arguments go out as the JSON of an object. Of an argument that comes twice the first counts.

The form escapes nothing, so a value ends where its end is sure: at its closing tag, if another
argument or an end of the call follows; at the function's closing tag, if that of the call follows;
at a line that begins with the opening tag of an argument that the tool has and that has not come
yet. All else is the value's text, and so is any tag within a string of an object or a list.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from nemotrt.engines.model.families import XmlCall
from nemotrt.engines.text.hold_back import HoldBack
from nemotrt.serve.front.tools.element_value import ElementValue
from nemotrt.serve.front.tools.json_reader import SPACE, Status
from nemotrt.serve.front.tools.value_types import ArgumentTypes

NEWLINE = "\n"
NAME = re.compile(r"[^<>\n]*")
MAX_NAME = 1024  # characters; what is longer is no name


class CallElement:
    """One element; feed it from behind the beginning of its opening tag, `form.function.open`."""

    def __init__(self, form: XmlCall, end: str, functions: Mapping[str, Any]) -> None:
        """Start before the name; `end` closes a block, `functions` are schemas by their names."""
        self.status = Status.OPEN
        self.name: str | None = None
        self.is_call = False  # from here on it can't be taken back
        self.has_closed_block = False
        self.rest = ""  # what has been read behind the call
        self._form, self._end, self._functions = form, end, functions
        self._types = ArgumentTypes(None)
        self._arguments: set[str] = set()  # their names
        self._is_first = True  # the argument under way is the first of its name
        self._value = ElementValue()
        self._hold = HoldBack((*form.parameter, form.function.close), NEWLINE)  # of the value
        self._tag = ""  # may end the value, if one of `_followers` comes
        self._space: list[str] = []  # behind it
        self._followers: tuple[str, ...] = ()
        self._text = ""  # of a name or a follower
        self._pieces: list[str] = []  # of the arguments, not yet handed over
        self._read: Callable[[str, int], int] = self._name

    def push(self, text: str, start: int) -> int:
        """Read `text` from `start`; return where the call ends, or where the reading does."""
        position = start
        while position < len(text) and self.status is Status.OPEN:
            position = self._read(text, position)
        return position

    def take(self) -> str:
        """Return the arguments that can go out."""
        piece, self._pieces = "".join(self._pieces), []
        return piece

    @property
    def is_cut(self) -> bool:
        """Whether a call has begun, and not ended."""
        return self.is_call and self.status is Status.OPEN

    def flush(self) -> None:
        """Take the text as ended."""
        if self._read == self._follower and self._tag == self._form.parameter.close:
            self._end_value()
        elif self._read in (self._follower, self._value_text) and self._arguments:
            self._go_on()
            self._add(self._hold.flush())
            self._say(self._value.flush())

    def _name(self, text: str, position: int) -> int:
        """Read the name of the function, then those of its arguments."""
        found = NAME.match(text, position, position + MAX_NAME - len(self._text))
        stop = found.end() if found else position
        self._text += text[position:stop]
        if stop == len(text):
            return stop
        name = self._text.strip()
        if text[stop] != ">" or not name:
            self._break_off()
        elif self.is_call:
            self._begin_value(name)
        else:
            self.name, self.is_call = name, True
            self._types = ArgumentTypes(self._functions.get(name))
            self._await("", (self._form.parameter.open, self._form.function.close, self._end))
        return stop + (self.status is Status.OPEN)

    def _value_text(self, text: str, position: int) -> int:
        """Read a value up to what may end it."""
        body, end = self._hold.push(text, position)
        self._add(body)
        if end is None:
            return len(text)
        tag, form = self._hold.found, self._form
        followers: tuple[str, ...] = (self._end,)
        if self._value.is_in_quotes and not self._hold.held:
            followers = ()
        elif tag == form.parameter.close:
            followers = (form.parameter.open, form.function.close, self._end)
        elif tag == form.parameter.open:
            due = self._types.properties.keys() - self._arguments
            followers = tuple(f"{name}>" for name in due) if self._hold.held else ()
        self._await(tag, followers)
        return end

    def _await(self, tag: str, followers: tuple[str, ...]) -> None:
        """Look for one of `followers` behind a tag that may end a value, "" if there is none."""
        self._tag, self._followers, self._read = tag, followers, self._follower
        self._space, self._text = [], ""

    def _follower(self, text: str, position: int) -> int:
        character = text[position]
        if character in SPACE and not self._text and self._tag != self._form.parameter.open:
            self._space.append(character)
            return position + 1
        seen = self._text + character
        if not any(follower.startswith(seen) for follower in self._followers):
            if self._tag:
                self._go_on()
            else:
                self.rest = self._text
                self._finish()
            return position
        self._text = seen
        if seen in self._followers:
            self._followed(seen)
        return position + 1

    def _followed(self, follower: str) -> None:
        """Go on behind a follower, whose coming has ended the value under way."""
        if self._tag:
            self._end_value()
        self._text, self._read = "", self._name
        if self._tag == self._form.parameter.open:
            self._begin_value(follower[:-1])
        elif follower != self._form.parameter.open:
            self.has_closed_block = follower == self._end
            self._finish()

    def _break_off(self) -> None:
        """End at something that is no name."""
        if not self.is_call:
            self.status = Status.BROKEN
            return
        self.rest = self._form.parameter.open + self._text
        self._finish()

    def _finish(self) -> None:
        self.status = Status.COMPLETE
        self._pieces.append("}" if self._arguments else "{}")

    def _begin_value(self, name: str) -> None:
        self._is_first = name not in self._arguments
        self._say((", " if self._arguments else "{") + f"{json.dumps(name, ensure_ascii=False)}: ")
        self._arguments.add(name)
        self._value = ElementValue(self._types.of(self._types.schema_of(name)))
        self._text, self._read = "", self._value_text

    def _go_on(self) -> None:
        """Take what might have ended the value as its text."""
        text = "".join((self._tag, *self._space, self._text))
        self._tag, self._space, self._text, self._read = "", [], "", self._value_text
        self._add(self._hold.push(text, counts=False)[0])

    def _end_value(self) -> None:
        """End the value; a newline before its closing tag belongs to the form."""
        self._add(self._hold.flush().removesuffix(NEWLINE))
        self._say(self._value.end())

    def _add(self, text: str) -> None:
        if text:
            self._say(self._value.push(text))

    def _say(self, json_text: str) -> None:
        """Let a piece of the arguments out."""
        if self._is_first:
            self._pieces.append(json_text)
