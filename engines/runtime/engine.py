"""What a backend offers once an engine is open: slots of state, and one step over some of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from nemotrt.engines.runtime.kept_state import (
    CachedTokens,
    FixedState,
    SavedState,
    StateBytes,
)
from nemotrt.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine was built for; a request beyond them is refused."""

    max_batch_size: int  # sequences that hold state at once
    max_seq_len: int  # prompt plus generated tokens of one sequence
    chunk_tokens: int  # new tokens of one sequence in one step

    def __post_init__(self) -> None:
        """Check that every limit is positive and a chunk fits a sequence."""
        for name in ("max_batch_size", "max_seq_len", "chunk_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.chunk_tokens > self.max_seq_len:
            raise ConfigError(
                f"chunk_tokens ({self.chunk_tokens}) exceeds max_seq_len ({self.max_seq_len})."
            )


# In place of a token: the one that was chosen last for the slot, which the host may not know yet.
CHOSEN = -1


@dataclass(frozen=True, slots=True)
class Feed:
    """New tokens for one slot: a prompt chunk, or the last sampled token.

    CHOSEN is for an engine that chooses tokens itself, as a chunk of its own. `num_logits` is how
    many of the tokens, counted from the last one, bring a row of logits. A draft is a guess: its
    slot holds none of it until `accept` says how many of the tokens hold.
    """

    slot: int
    tokens: Sequence[int]
    num_logits: int = 1
    is_draft: bool = False


class HasLimits(Protocol):
    """What every engine says of itself, also one that schedules for itself."""

    @property
    def limits(self) -> Limits:
        """The limits that the engine was built for."""

    @property
    def vocab_size(self) -> int:
        """Number of logits."""


class Engine(HasLimits, Protocol):
    """Owns the state of up to `limits.max_batch_size` sequences; not thread-safe."""

    def allocate(self) -> int:
        """Return a free slot with empty state; raises ConfigError when none is free."""

    def release(self, slot: int) -> None:
        """Free a slot; nothing of its state is visible to the next owner."""

    def held_tokens(self, slot: int) -> int:
        """Tokens that the slot's state holds."""

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Feed each slot its new tokens; return the logits after the tokens that bring some.

        The rows [sum of num_logits, vocab] stand feed after feed, token after token.

        Raises:
            ConfigError: a slot is not allocated or given twice, a token is out of range, more
                rows are wanted than there are tokens, or a limit is exceeded. No state has
                changed then.
        """

    def close(self) -> None:
        """Free everything."""


@runtime_checkable
class KeepsState(Engine, Protocol):
    """An engine whose slots' state can be saved on the host, and given to slots again."""

    @property
    def state_bytes(self) -> StateBytes:
        """What a saved state costs on the host."""

    def save(self, slot: int, start: int = 0) -> SavedState:
        """Return a copy of a slot's state; of its caches, what they have of tokens from `start` on.

        Raises:
            ConfigError: the slot is not allocated, or holds fewer tokens.
            EnvironmentUnfitError: the host has no memory for it; nothing has changed.
        """

    def restore(self, slot: int, fixed: FixedState, caches: Sequence[CachedTokens]) -> None:
        """Give an empty slot a state that was saved; it holds the caches' tokens then.

        Raises:
            ConfigError: the slot is not allocated, holds tokens, or can't hold so many.
        """


@runtime_checkable
class TakesDrafts(Engine, Protocol):
    """An engine whose slots can be fed tokens that may turn out wrong."""

    @property
    def max_draft(self) -> int:
        """Tokens of a draft at most; 0 where it was opened for none."""

    def accept(self, counts: Mapping[int, int]) -> None:
        """Have each slot hold so many tokens of the draft it was fed last; the others are undone.

        Until then its state is that before the draft, and a new feed takes the draft's place.

        Raises:
            ConfigError: a slot has no such draft. No state has changed then.
        """


@runtime_checkable
class TakesAdapters(Engine, Protocol):
    """An engine that was opened with adapters, of which each slot may have one."""

    @property
    def adapters(self) -> Sequence[str]:
        """Their names."""

    @property
    def adapter_bytes(self) -> int:
        """Memory that all of them take."""

    def adapt(self, slot: int, name: str) -> None:
        """Have an empty slot's tokens go through an adapter, until the slot is free.

        Raises:
            ConfigError: the slot is not allocated, or there is no such adapter.
        """


def step_by_rows(
    step: Callable[[Sequence[Feed]], npt.NDArray[np.float32]], feeds: Sequence[Feed]
) -> npt.NDArray[np.float32]:
    """Return the logits of all rows from a step that gives one row a feed.

    What comes before a feed's first row runs as one piece, what follows token by token: exact,
    and as slow as decoding.
    """
    rows: list[list[npt.NDArray[np.float32]]] = [[] for _ in feeds]
    by_row = [pieces(feed) for feed in feeds]
    for turn in range(max(map(len, by_row))):
        live = [index for index, own in enumerate(by_row) if turn < len(own)]
        for index, row in zip(live, step([by_row[index][turn] for index in live]), strict=True):
            rows[index].append(row)
    return np.stack([row for own in rows for row in own])


def pieces(feed: Feed) -> list[Feed]:
    """Return a feed as one piece for each of its rows: what comes before the first, then tokens."""
    start = len(feed.tokens) - feed.num_logits + 1
    parts = [feed.tokens[:start], *([token] for token in feed.tokens[start:])]
    return [Feed(feed.slot, part) for part in parts]
