"""Turns the text of an argument's element into JSON, by the types that its schema allows.

A string goes out as it comes, any other value once it has ended. What may be a string and
something else is the latter if it reads as JSON of such a type. What is no JSON is a string.
"""

import json
from typing import Any

from nemotrt.serve.front.tools.json_reader import SPACE, refuse_constant
from nemotrt.serve.front.tools.value_types import NULL, STRING, Types, type_of

NEWLINE = "\n"
# Words as JSON has them, and as templates print Python's into earlier calls.
WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}
NULLS = ("null", "None")


class ElementValue:
    """One value; a newline behind its opening tag belongs to the form."""

    def __init__(self, types: Types = STRING) -> None:
        """Start before the value."""
        self._types = types
        self._is_string = types == STRING
        self._is_quoted = False  # the opening quote has gone out
        self._is_begun = False
        self._held: list[str] = []  # of what may be no string

    def push(self, text: str) -> str:
        """Add a piece that is not empty; return what can go out."""
        if not self._is_begun:
            text, self._is_begun = text.removeprefix(NEWLINE), True
        if self._is_string:
            return self._quoted(text)
        self._held.append(text)
        if self._types != STRING | NULL:
            return ""
        whole = "".join(self._held)  # short: else it is a string by now
        if any(word.startswith(whole) for word in NULLS):
            return ""
        self._is_string = True
        return self._quoted(whole)

    def end(self) -> str:
        """Return the rest of a value that has ended."""
        return (
            self._quoted("") + '"' if self._is_string else _json("".join(self._held), self._types)
        )

    def flush(self) -> str:
        """Return the rest of a value that has broken off, as it is."""
        return "".join(self._held) if not self._is_string else ""

    def _quoted(self, text: str) -> str:
        quote, self._is_quoted = "" if self._is_quoted else '"', True
        return quote + json.dumps(text, ensure_ascii=False)[1:-1]


def _json(text: str, types: Types) -> str:
    """Return a value as JSON, numbers as they are written."""
    value = text.strip(SPACE)
    value = WORDS.get(value.lower(), value)
    found = _type_of_json(value)
    others = types - STRING
    if found and (found in others or "string" not in types):
        return value
    return json.dumps(text, ensure_ascii=False)


def _type_of_json(text: str) -> str:
    """Return the type of the value in `text`, "" if it is no JSON."""
    try:
        # The digits of a number are not read: there may be too many.
        value: Any = json.loads(
            text, parse_int=lambda _: 0, parse_float=lambda _: 0.0, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError):
        return ""
    return type_of(value)
