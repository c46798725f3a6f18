"""Reads JSON that comes in pieces: where a value ends, and what a string says.

Each character is looked at once, and nothing here is recursive: time is linear in the text.
"""

import json
from enum import Enum, auto
from string import ascii_letters, digits, hexdigits

from nemotrt.serve.grammar.json_schema import no_number

SPACE = " \t\n\r"
SCALAR = frozenset(ascii_letters + digits + "+-.")
SCALAR_START = frozenset(digits + "-tfn")
MAX_SCALAR = 1024  # characters of a number; a longer one is none
MAX_DEPTH = 512  # brackets within brackets
CLOSER = {"{": "}", "[": "]"}
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Status(Enum):
    """How far a text has been read."""

    OPEN = auto()
    COMPLETE = auto()
    BROKEN = auto()  # no further text could make it right


class Value:
    """Finds the end of a value whose first character is not a space.

    Between the strings of an object or a list only brackets count: a model's slips, such as a
    missing comma, are left to whoever parses the value. A `<` can't stand there, nor a bracket of
    the wrong kind.
    """

    def __init__(self) -> None:
        """Start before the value."""
        self.status = Status.OPEN
        self._closers: list[str] = []
        self._scalar = ""
        self._in_string = False
        self._is_escaped = False

    def push(self, text: str, start: int) -> int:
        """Read `text` from `start`; return where the value ends, or where the reading does."""
        position = start
        while position < len(text) and self.status is Status.OPEN:
            position += self._next(text[position])
        return position

    def _next(self, character: str) -> bool:
        """Take a character; False if it is not of the value."""
        if self._in_string:
            self._string(character)
        elif self._scalar or (not self._closers and character in SCALAR_START):
            return self._number_or_word(character)
        elif character == '"':
            self._in_string = True
        elif character in CLOSER and len(self._closers) < MAX_DEPTH:
            self._closers.append(CLOSER[character])
        elif self._closers and character == self._closers[-1]:
            self._closers.pop()
            self._end_if_outermost()
        elif not self._closers or character in "{[}]<":
            self.status = Status.BROKEN
            return False
        return True

    def _string(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._in_string = False
            self._end_if_outermost()

    def _end_if_outermost(self) -> None:
        if not self._closers:
            self.status = Status.COMPLETE

    def _number_or_word(self, character: str) -> bool:
        """Collect a number or a word, which ends at the first character that is not of it."""
        if character in SCALAR and len(self._scalar) < MAX_SCALAR:
            self._scalar += character
            return True
        self.status = Status.COMPLETE if _is_scalar(self._scalar) else Status.BROKEN
        return False


class StringText:
    """Decodes the inside of a string: what stands between its quotes.

    An escape that JSON does not know stays as it is written. Half a surrogate pair becomes U+FFFD,
    since no UTF-8 could carry it.
    """

    def __init__(self) -> None:
        """Start behind the opening quote."""
        self._escape = ""
        self._high = ""  # the first half of a surrogate pair

    def push(self, text: str) -> str:
        """Return what a piece adds."""
        return "".join(map(self._next, text))

    def flush(self) -> str:
        """Return what is held, once no more text comes."""
        rest, self._high = self._high and REPLACEMENT, ""
        rest, self._escape = rest + self._escape, ""
        return rest

    def _next(self, character: str) -> str:
        if not self._escape and character != "\\":
            return self._whole(character)
        self._escape += character
        if len(self._escape) < (6 if self._escape.startswith("\\u") else 2):
            return ""
        escape, self._escape = self._escape, ""
        if escape[1] in ESCAPES:
            return self._whole(ESCAPES[escape[1]])
        code = escape[2:]
        if len(code) == 4 and all(digit in hexdigits for digit in code):
            return self._whole(chr(int(code, 16)))
        return self._whole(escape)

    def _whole(self, text: str) -> str:
        """Return decoded text, once both halves of a pair are there."""
        high, self._high = self._high, ""
        if "\ud800" <= text <= "\udbff":
            self._high = text
            return high and REPLACEMENT
        if "\udc00" <= text <= "\udfff":
            pair = (high + text).encode("utf-16", "surrogatepass") if high else b""
            return pair.decode("utf-16") if high else REPLACEMENT
        return (high and REPLACEMENT) + text


def _is_scalar(text: str) -> bool:
    """Whether `text` is a number, true, false or null."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=no_number)
    except ValueError:
        return False
    return True
