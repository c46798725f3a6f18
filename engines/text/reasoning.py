"""Where a reasoning trace begins and ends, told by the text: one reader for engine and front.

A prompt says where it leaves the trace (`trace_of`), the generated text goes on from there
(`TraceReader`). The budget, the grammar's start, the stop strings and the split into
`reasoning_content` and `content` all follow the same reader, so they never disagree.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
TAG = re.compile(THINK_OPEN)


class Trace(StrEnum):
    """Where a text stands with its reasoning trace."""

    BEFORE = "before"  # nothing has been said: the model may open a trace, at the very start
    OPEN = "open"
    ENDED = "ended"  # its closing tag was written last: newlines that follow belong to it
    CLOSED = "closed"  # what comes is the answer, whatever it says


@dataclass(frozen=True, slots=True)
class Split:
    """What a piece of text settled.

    `outside` is all that does not belong to the content, as it was written: the trace, its tags
    and the newlines next to them. It stands before the content.
    """

    reasoning: str = ""
    content: str = ""
    outside: str = ""


def trace_of(prompt: str, header: str) -> Trace:
    """Return where a prompt leaves the trace.

    Only the assistant's last turn counts, which begins behind `header`; a user may write of
    `<think>` at will. Without a header, or without its place in the prompt, the whole prompt is
    one text that the model continues.
    """
    start = prompt.rfind(header) if header else -1
    turn = prompt[start + len(header) :] if start >= 0 else prompt
    end = turn.rfind(THINK_CLOSE)
    if _opens(turn, max(end, 0)):
        return Trace.OPEN
    if turn.rstrip("\n").endswith(THINK_CLOSE):
        return Trace.ENDED
    has_begun = start >= 0 and turn.strip()  # a turn that the client has begun is no start
    return Trace.CLOSED if end >= 0 or has_begun else Trace.BEFORE


def _opens(text: str, start: int) -> bool:
    """Whether a `<think>` from `start` on opens a trace, and is no word of a sentence.

    It begins the text or a line, follows another tag, or is the last that was written.
    """
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    for found in TAG.finditer(text, start):
        if found.start() == first or found.end() == last or text[found.start() - 1] in "\n>":
            return True
    return False


class TraceReader:
    """Splits a text that comes in pieces into the trace and the content; tags are in neither.

    Newlines next to the tags belong to the format and are in neither side either.
    """

    def __init__(self, trace: Trace) -> None:
        """Start where the prompt leaves the trace."""
        self.trace = Trace.CLOSED if trace is Trace.ENDED else trace
        self.pending = ""  # what may yet become a tag, or a newline beside one
        self._trim = trace in (Trace.OPEN, Trace.ENDED)  # newlines at the start of a side

    def push(self, text: str) -> Split:
        """Add a piece; hold back what may become a tag or a newline before it."""
        self.pending += text
        opening = ""
        if self.trace is Trace.BEFORE:
            before = self.pending
            if not self._begin():
                return Split()
            opening = before[: len(before) - len(self.pending)]
        if self.trace is Trace.OPEN:
            split = self._reason()
            return Split(split.reasoning, split.content, opening + split.outside)
        dropped, content = self._take(len(self.pending))
        return Split(content=content, outside=opening + dropped)

    def flush(self) -> Split:
        """Return what is held, once no more text comes."""
        dropped, rest = self._take(len(self.pending))
        if self.trace is Trace.OPEN:
            return Split(reasoning=rest, outside=dropped + rest)
        self.trace = Trace.CLOSED
        return Split(content=rest, outside=dropped)

    def _begin(self) -> bool:
        """Decide whether the text opens a trace itself; False while that is unknown."""
        start = self.pending.lstrip()
        if start.startswith(THINK_OPEN):
            self.trace, self._trim = Trace.OPEN, True
            self.pending = start[len(THINK_OPEN) :]
        elif not start or THINK_OPEN.startswith(start):
            return False
        else:
            self.trace = Trace.CLOSED  # a plain answer keeps its own first newlines
        return True

    def _reason(self) -> Split:
        """Return what is surely of the trace, and what follows it once it has ended."""
        end = self.pending.find(THINK_CLOSE)
        if end < 0:
            dropped, reasoning = self._take(len(self.pending) - self._possible_end())
            return Split(reasoning=reasoning, outside=dropped + reasoning)
        written, self.pending = self.pending[:end], self.pending[end + len(THINK_CLOSE) :]
        reasoning = written.rstrip("\n")
        reasoning = reasoning.lstrip("\n") if self._trim else reasoning
        self.trace, self._trim = Trace.CLOSED, True
        dropped, content = self._take(len(self.pending))
        return Split(reasoning, content, written + THINK_CLOSE + dropped)

    def _possible_end(self) -> int:
        """Return the length of the tail that may belong to newlines and a closing tag."""
        text = self.pending
        for size in range(min(len(text), len(THINK_CLOSE) - 1), 0, -1):
            if text.endswith(THINK_CLOSE[:size]):
                return len(text) - len(text[:-size].rstrip("\n"))
        return len(text) - len(text.rstrip("\n"))

    def _take(self, size: int) -> tuple[str, str]:
        """Remove the first `size` characters held; return the newlines of a start, and the rest."""
        text, self.pending = self.pending[:size], self.pending[size:]
        rest = text.lstrip("\n") if self._trim else text
        self._trim = self._trim and not rest
        return text[: len(text) - len(rest)], rest
