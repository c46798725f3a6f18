"""The thinking budget, which ends a reasoning trace, and the guide of what follows the trace."""

from collections.abc import Callable, Sequence

import numpy as np

from nemotrt.engines.model.families import ChatFormat
from nemotrt.engines.runtime.sampling.guide import (
    FREE,
    Allowed,
    Forced,
    Guide,
    Rule,
    TextGuide,
    known_ahead,
)
from nemotrt.engines.text.reasoning import Split, Trace, TraceReader
from nemotrt.engines.text.tag_tokens import NO_TAGS, TagTokens

GRACE_TOKENS = 500  # Source: model card, "Reasoning Budget Control"


class ThinkingBudget:
    """Ends a reasoning trace at the first newline past its budget, or 500 tokens past it.

    The closing tag is forced token by token in the loop: one request, nothing is fed twice. A trace
    that the model opens itself counts from its opening tag; without a trace the model is free.
    """

    def __init__(
        self,
        chat: ChatFormat,
        max_thinking_tokens: float,
        encode: Callable[[str], Sequence[int]],
        trace: Trace = Trace.OPEN,
        *,
        is_at_newline: bool = True,
    ) -> None:
        """Start where the prompt leaves the trace.

        Args:
            chat: how the model writes a trace.
            max_thinking_tokens: the generated tokens of the trace that are not hurried.
            encode: gives a text's ids without special tokens.
            trace: where the prompt leaves it.
            is_at_newline: the trace may end at once, for the prompt is at a newline.
        """
        self._max_tokens = max_thinking_tokens
        self.chat = chat
        self._at_newline = tuple(encode(f"{chat.think.close}{chat.gap}"))
        self._at_limit = tuple(encode(f"\n{chat.think.close}{chat.gap}"))
        self._num_tokens = 0
        self._reader = TraceReader(chat, trace)
        self._queue: list[int] = []
        if trace is Trace.OPEN:
            self._close_if_due(is_newline=is_at_newline)

    @property
    def trace(self) -> Trace:
        """Where the text stands; a trace is open until all of its closing tag is out."""
        return Trace.OPEN if self._queue else self._reader.trace

    @property
    def pending(self) -> str:
        """What may yet become the opening tag."""
        return self._reader.held

    def rule(self) -> Rule:
        """Force the next token of the closing tag; outside of it the model is free."""
        return Forced(self._queue[0]) if self._queue else FREE

    def ahead(self) -> list[int]:
        """Return what is left of the closing tag."""
        return list(self._queue)

    def push(self, token: int, text: str) -> None:
        """Count the token; start closing the trace where it is due."""
        self.follow(text)

    def follow(self, text: str) -> Split:
        """Do as `push`, and return what the text brought either side."""
        before = self._reader.trace
        split = self._reader.push(text)
        if self._queue:
            self._queue.pop(0)
            if not self._queue and self._reader.trace is Trace.OPEN:
                self._reader = TraceReader(self.chat, Trace.CLOSED)  # the tag is spelled otherwise
        elif self._reader.trace is Trace.OPEN:
            self._num_tokens += before is Trace.OPEN
            # a trace that has just been opened may end before it begins
            self._close_if_due(is_newline=text.endswith("\n") or before is Trace.BEFORE)
        return split

    def _close_if_due(self, *, is_newline: bool) -> None:
        """Queue the closing tag at a newline past the budget, or once the grace is used up."""
        if self._num_tokens < self._max_tokens:
            return
        if is_newline or self._num_tokens >= self._max_tokens + GRACE_TOKENS:
            self._queue = list(self._at_newline if is_newline else self._at_limit)


class AfterThinking:
    """Leaves the trace to its budget; what follows it to another guide.

    Where the model may still open a trace, its tag is allowed beside what the answer allows. The
    closing tag may be followed by its newlines; the answer is told of what comes behind them, by
    text where a token of the tag carries it. The text can't end within the trace.
    """

    def __init__(
        self, thinking: ThinkingBudget, answer: TextGuide, tags: TagTokens = NO_TAGS
    ) -> None:
        """Start where `thinking` starts; `tags` are the tokenizer's ways to write tags."""
        self._thinking = thinking
        self._answer = answer
        self._tags = tags
        self._within_trace = _all_but(tags.ends, tags.vocab_size)
        self._num_newlines_left = 0
        self._last: Rule = FREE  # of the answer
        self._is_answer_ahead = True  # all tokens so far may be the answer's, and it knows them

    @property
    def in_charge(self) -> Guide:
        """The guide that the next rule comes from, if any does."""
        return self._thinking if self._thinking.trace is Trace.OPEN else self._answer

    def rule(self) -> Rule:
        """Return the rule of the guide in charge."""
        match self._thinking.trace:
            case Trace.OPEN:
                rule = self._thinking.rule()
                return self._within_trace if rule == FREE else rule
            case Trace.BEFORE:
                return self._either()
            case _:
                rule = self._answer.rule()
                return _with(rule, self._tags.newlines_up_to(self._num_newlines_left))

    def ahead(self) -> list[int]:
        """Return what the guide in charge knows of the next tokens."""
        return [] if self._thinking.trace is Trace.BEFORE else known_ahead(self.in_charge)

    def push(self, token: int, text: str) -> None:
        """Tell the guide that was in charge of the token."""
        before = self._thinking.trace
        if before is Trace.CLOSED:
            self._push_answer(token, text)
            return
        split = self._thinking.follow(text)
        if before is Trace.BEFORE:
            self._push_undecided(token, text)
        if self._thinking.trace is Trace.CLOSED and before is Trace.OPEN:
            gap = len(split.outside) - len(split.outside.rstrip("\n"))
            left = max(0, len(self._thinking.chat.gap) - gap)
            self._num_newlines_left = 0 if split.content else left
            if split.content:
                self._answer.push_text(split.content)

    def _either(self) -> Rule:
        """Return what the answer allows, and the tokens that go on with an opening tag."""
        opening = self._tags.opening_after(self._thinking.pending.lstrip())
        if self._is_answer_ahead:
            self._last = self._answer.rule()
            return _with(self._last, opening)
        return _with(Allowed(np.zeros(self._tags.vocab_size, np.bool_)), opening)

    def _push_undecided(self, token: int, text: str) -> None:
        """Let the answer know a token that may be its own; take it back once a trace is open."""
        if self._thinking.trace is Trace.OPEN:
            self._answer.restart()
            return
        allowed = self._last
        is_answer = not isinstance(allowed, Allowed) or allowed.has(token)
        self._is_answer_ahead = self._is_answer_ahead and is_answer
        if self._is_answer_ahead:
            self._answer.push(token, text)

    def _push_answer(self, token: int, text: str) -> None:
        """Count newlines that stand between the tag and the answer; the rest is the answer's."""
        is_gap = 0 < len(text) <= self._num_newlines_left and not text.strip("\n")
        self._num_newlines_left = self._num_newlines_left - len(text) if is_gap else 0
        if not is_gap:
            self._answer.push(token, text)


def _all_but(tokens: Sequence[int], vocab_size: int) -> Rule:
    """Return the rule that allows every other token."""
    if not tokens:
        return FREE
    mask = np.ones(vocab_size, np.bool_)
    mask[list(tokens)] = False
    return Allowed(mask)


def _with(rule: Rule, tokens: Sequence[int]) -> Rule:
    """Return a rule that allows `tokens` too; one that ends the request stays as it is."""
    if not (isinstance(rule, Allowed) and tokens):
        return rule
    return rule.and_also(tokens)
