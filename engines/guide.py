"""What may steer one request's tokens from inside the engine's loop, and the thinking budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

THINK_CLOSE = "</think>"
GRACE_TOKENS = 500  # Source: model card, "Reasoning Budget Control"


@dataclass(frozen=True, slots=True)
class Free:
    """Every token may come next."""


@dataclass(frozen=True, slots=True)
class Forced:
    """One token must come next, whatever the logits say."""

    token: int


@dataclass(frozen=True, slots=True)
class Allowed:
    """Only the tokens of a mask may come next.

    `mask` is [vocab], with at least one True.
    """

    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Complete:
    """Nothing may come next: the text is whole, and the request ends by `stop`."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The guide can't say what may come next: the request fails with the reason."""

    reason: str


Rule = Free | Forced | Allowed | Complete | Broken
FREE = Free()
COMPLETE = Complete()


class Guide(Protocol):
    """Steers one sequence: asked for a rule before each token, told of the token afterwards."""

    def rule(self) -> Rule:
        """Return what the next token must be; no rule stands for two of them."""

    def push(self, token: int, text: str) -> None:
        """Learn the token that was chosen and the text that it completed."""


class ThinkingBudget:
    """Ends a reasoning trace at the first newline past its budget, or 500 tokens past it.

    The closing tag is forced token by token in the loop: one request, nothing is fed twice.
    """

    def __init__(self, max_thinking_tokens: float, encode: Callable[[str], Sequence[int]]) -> None:
        """Start inside an open trace; `encode` gives a text's ids without special tokens."""
        self._max_tokens = max_thinking_tokens
        self._at_newline = tuple(encode(f"{THINK_CLOSE}\n\n"))
        self._at_limit = tuple(encode(f"\n{THINK_CLOSE}\n\n"))
        self._num_tokens = 0
        self._tail = ""
        self._queue: list[int] = []
        self._is_closed = False
        self._close_if_due("\n")

    @property
    def is_over(self) -> bool:
        """Whether the trace and its closing tag are out."""
        return self._is_closed and not self._queue

    def rule(self) -> Rule:
        """Force the next token of the closing tag; outside of it the model is free."""
        return Forced(self._queue[0]) if self._queue else FREE

    def push(self, token: int, text: str) -> None:
        """Count the token; start closing the trace where it is due."""
        if self._queue:
            self._queue.pop(0)
            return
        if self._is_closed:
            return
        self._num_tokens += 1
        self._tail = (self._tail + text)[-2 * len(THINK_CLOSE) :]
        if THINK_CLOSE in self._tail:
            self._is_closed = True
        else:
            self._close_if_due(text)

    def _close_if_due(self, text: str) -> None:
        """Queue the closing tag at a newline past the budget, or once the grace is used up."""
        if self._num_tokens < self._max_tokens:
            return
        is_newline = text.endswith("\n")
        if is_newline or self._num_tokens >= self._max_tokens + GRACE_TOKENS:
            self._queue = list(self._at_newline if is_newline else self._at_limit)
            self._is_closed = True


class AfterThinking:
    """Leaves the trace to its budget; what follows it to another guide."""

    def __init__(self, thinking: ThinkingBudget, answer: Guide) -> None:
        """Start inside an open trace."""
        self._thinking = thinking
        self._answer = answer

    def rule(self) -> Rule:
        """Return the rule of the guide in charge."""
        return self._guide.rule()

    def push(self, token: int, text: str) -> None:
        """Tell the guide that was in charge of the token."""
        self._guide.push(token, text)

    @property
    def _guide(self) -> Guide:
        return self._answer if self._thinking.is_over else self._thinking
