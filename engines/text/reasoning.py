"""Where a reasoning trace begins and ends, told by the text: one reader for engine and front.

A prompt says where it leaves the trace (`trace_of`), the generated text goes on from there
(`TraceReader`). The budget, the grammar's start, the stop strings and the split into
`reasoning_content` and `content` all follow the same reader, so they never disagree.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from nemotrt.engines.model.families import ChatFormat
from nemotrt.engines.text.hold_back import ANY_SPACE, HoldBack

NEWLINE = "\n"


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


def trace_of(chat: ChatFormat, prompt: str, header: str) -> Trace:
    """Return where a prompt leaves the trace.

    Only the assistant's last turn counts, which begins behind `header`; a user may write of tags
    at will. Without a header, or without its place in the prompt, the whole prompt is
    one text that the model continues.
    """
    start = prompt.rfind(header) if header else -1
    turn = prompt[start + len(header) :] if start >= 0 else prompt
    end = turn.rfind(chat.think.close)
    if _opens(chat.think.open, turn, max(end, 0)):
        return Trace.OPEN
    if turn.rstrip(NEWLINE).endswith(chat.think.close):
        return Trace.ENDED
    has_begun = start >= 0 and turn.strip()  # a turn that the client has begun is no start
    return Trace.CLOSED if end >= 0 or has_begun else Trace.BEFORE


def _opens(tag: str, text: str, start: int) -> bool:
    """Whether a `tag` from `start` on opens a trace, and is no word of a sentence.

    It begins the text or a line, follows another tag, or is the last that was written.
    """
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    for found in re.finditer(re.escape(tag), text[start:]):
        begin, end = start + found.start(), start + found.end()
        if begin == first or end == last or text[begin - 1] in (NEWLINE, tag[-1]):
            return True
    return False


class TraceReader:
    """Splits a text that comes in pieces into the trace and the content; tags are in neither.

    Newlines next to the tags belong to the format and are in neither side either.
    """

    def __init__(self, chat: ChatFormat, trace: Trace) -> None:
        """Start where the prompt leaves the trace."""
        self.trace = Trace.CLOSED if trace is Trace.ENDED else trace
        self._chat = chat
        self._hold = HoldBack((chat.think.open,), ANY_SPACE)
        if trace is Trace.OPEN:
            self._hold = HoldBack((chat.think.close,), NEWLINE)
        self._trim = trace in (Trace.OPEN, Trace.ENDED)  # newlines at the start of a side

    @property
    def held(self) -> str:
        """What may yet become a tag, or stand beside one."""
        return self._hold.held

    def push(self, text: str) -> Split:
        """Add a piece; hold back what may become a tag or a newline before it."""
        match self.trace:
            case Trace.BEFORE:
                return self._begin(text)
            case Trace.OPEN:
                return self._reason(text)
            case _:
                return self._answer(text)

    def flush(self) -> Split:
        """Return what is held, once no more text comes."""
        held = self._hold.flush()
        if self.trace is Trace.OPEN:
            return Split(reasoning=self._trimmed(held), outside=held)
        self.trace = Trace.CLOSED
        return Split(content=held)

    def _begin(self, text: str) -> Split:
        """Decide whether the text opens a trace itself: its tag comes before all but space."""
        text = self._hold.flush() + text
        passed, end = self._hold.push(text)
        if passed:  # a plain answer keeps its own first newlines
            self._hold.flush()
            self.trace = Trace.CLOSED
            return Split(content=text)
        if end is None:
            return Split()
        self.trace, self._trim = Trace.OPEN, True
        self._hold = HoldBack((self._chat.think.close,), NEWLINE)
        split = self._reason(text[end:])
        return Split(split.reasoning, split.content, text[:end] + split.outside)

    def _reason(self, text: str) -> Split:
        """Return what is surely of the trace, and what follows it once it has ended."""
        passed, end = self._hold.push(text)
        reasoning = self._trimmed(passed)
        if end is None:
            return Split(reasoning=reasoning, outside=passed)
        written = passed + self._hold.flush() + self._chat.think.close
        self.trace, self._trim = Trace.CLOSED, True
        answer = self._answer(text[end:])
        return Split(reasoning, answer.content, written + answer.outside)

    def _answer(self, text: str) -> Split:
        """Return content, and the newlines between it and a tag."""
        content = self._trimmed(text)
        return Split(content=content, outside=text[: len(text) - len(content)])

    def _trimmed(self, text: str) -> str:
        """Return the text without the newlines of a start."""
        rest = text.lstrip(NEWLINE) if self._trim else text
        self._trim = self._trim and not rest
        return rest


class TraceCounter:
    """Counts the tokens of a trace, those of its tags among them."""

    def __init__(self, chat: ChatFormat, trace: Trace) -> None:
        """Start where the prompt leaves the trace."""
        self._reader = TraceReader(chat, trace)
        self._mark = chat.think.close[0]
        self._is_plain = trace is Trace.OPEN  # no closing tag has begun
        self._num_tokens = 0

    @property
    def num_tokens(self) -> int:
        """The tokens so far; none while it is open whether there is a trace at all."""
        return 0 if self._reader.trace is Trace.BEFORE else self._num_tokens

    def push(self, text: str) -> None:
        """Add a token that completes `text`."""
        before = self._reader.trace
        if before is Trace.CLOSED:
            return
        self._num_tokens += 1
        if self._is_plain and self._mark not in text:
            return  # most tokens: the reader would take ten times as long
        split = self._reader.push(text)
        is_open = self._reader.trace is Trace.OPEN
        self._is_plain = is_open and not self._reader.held.strip(NEWLINE)
        if before is Trace.BEFORE and split.content and not split.outside:
            self._num_tokens = 0  # there is no trace
