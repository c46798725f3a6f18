"""Turns the text of an argument's element into JSON, by the types that its schema allows.

A string goes out as it comes, any other value once it has ended. What may be a string and
something else is the latter if it reads as JSON of such a type. What is no JSON is a string.
"""

import json
import re
from typing import Any

from nemotrt.serve.front.tools.json_reader import CLOSER, SPACE
from nemotrt.serve.front.tools.value_types import CONTAINERS, NULL, STRING, Types, type_of
from nemotrt.serve.grammar.json_schema import no_number

NEWLINE = "\n"
# Words as JSON has them, and as templates print Python's into earlier calls.
WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}
# A quote, a newline, or an escape, whose second half may be yet to come.
QUOTES = re.compile(r'"|\n|\\.?', re.DOTALL)
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
        self._start = ""  # the first character that is no space, if it may be a bracket
        self._is_escaped = False  # the next character of a JSON string
        self.is_in_quotes = False  # within a string of an object or a list, which has no newline

    def push(self, text: str) -> str:
        """Add a piece that is not empty; return what can go out."""
        if not self._is_begun:
            text, self._is_begun = text.removeprefix(NEWLINE), True
        if self._is_string:
            return self._quoted(text)
        self._held.append(text)
        if not self._start and self._types & CONTAINERS:
            self._start = text.lstrip(SPACE)[:1]
        if self._start in CLOSER:
            self._follow_quotes(text)
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

    def _follow_quotes(self, text: str) -> None:
        start = 1 if self._is_escaped and text else 0
        self._is_escaped = False
        for found in QUOTES.finditer(text, start):
            if found[0] == '"':
                self.is_in_quotes = not self.is_in_quotes
            elif found[0] == NEWLINE:
                self.is_in_quotes = False
            else:
                self._is_escaped = found[0] == "\\"  # what it escapes has not come yet

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
            text, parse_int=lambda _: 0, parse_float=lambda _: 0.0, parse_constant=no_number
        )
    except (ValueError, RecursionError):
        return ""
    return type_of(value)
