"""Splits a text that comes in pieces into the reasoning trace and the answer."""

from dataclasses import dataclass

OPEN = "<think>"
CLOSE = "</think>"


@dataclass(frozen=True, slots=True)
class Split:
    """What a piece of text added to either side."""

    reasoning: str = ""
    content: str = ""


class ReasoningSplitter:
    """Starts inside the trace where the prompt has opened one; tags are in neither side.

    Newlines next to the tags belong to the format and are dropped.
    """

    def __init__(self, *, is_open: bool) -> None:
        """Start at the beginning of an answer."""
        self._is_open = is_open
        self._has_begun = is_open  # an answer may also open a trace itself, at its very start
        self._held = ""
        self._trim = True  # newlines at the start of a side

    def push(self, text: str) -> Split:
        """Add a piece; hold back what may become a tag or a newline before it."""
        self._held += text
        if not self._has_begun and not self._begin():
            return Split()
        if self._is_open:
            return self._reason()
        return Split(content=self._take(len(self._held)))

    def flush(self) -> Split:
        """Return what is held, once no more text comes."""
        self._has_begun = True
        rest = self._take(len(self._held))
        return Split(reasoning=rest) if self._is_open else Split(content=rest)

    def _begin(self) -> bool:
        """Decide whether the answer opens a trace itself; False while that is unknown."""
        start = self._held.lstrip()
        if start.startswith(OPEN):
            self._is_open, self._held = True, start[len(OPEN) :]
        elif not start or OPEN.startswith(start):
            return False
        else:
            self._trim = False  # a plain answer keeps its own first newlines
        self._has_begun = True
        return True

    def _reason(self) -> Split:
        """Return what is surely of the trace, and what follows it once it has ended."""
        end = self._held.find(CLOSE)
        if end >= 0:
            trace = self._held[:end].rstrip("\n")
            reasoning = trace.lstrip("\n") if self._trim else trace
            self._held = self._held[end + len(CLOSE) :]
            self._is_open, self._trim = False, True
            return Split(reasoning, self._take(len(self._held)))
        return Split(reasoning=self._take(len(self._held) - self._possible_end()))

    def _possible_end(self) -> int:
        """Return the length of the tail that may belong to newlines and a closing tag."""
        text = self._held
        for size in range(min(len(text), len(CLOSE) - 1), 0, -1):
            if text.endswith(CLOSE[:size]):
                return len(text) - len(text[:-size].rstrip("\n"))
        return len(text) - len(text.rstrip("\n"))

    def _take(self, size: int) -> str:
        """Remove and return the first `size` characters held, trimmed at a side's start."""
        text, self._held = self._held[:size], self._held[size:]
        if self._trim:
            text = text.lstrip("\n")
            self._trim = not text
        return text
