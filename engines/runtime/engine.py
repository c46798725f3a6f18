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

    Attributes:
        slot: an allocated one.
        tokens: ids, at most `chunk_tokens`. CHOSEN stands alone, and only for an engine that
            chooses tokens itself.
        num_logits: how many of the tokens, counted from the last one, bring a row of logits.
        is_draft: the tokens are guesses; the slot holds none of them until `accept` says how many
            hold.
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
        """Tokens of the vocabulary, which is the length of a row of logits."""


class Engine(HasLimits, Protocol):
    """Owns the state of up to `limits.max_batch_size` sequences; not thread-safe."""

    def allocate(self) -> int:
        """Return a free slot with empty state.

        Raises:
            ConfigError: no slot is free.
        """

    def release(self, slot: int) -> None:
        """Free a slot; its next owner sees nothing of its state.

        Raises:
            ConfigError: the slot is not allocated.
        """

    def held_tokens(self, slot: int) -> int:
        """Return how many tokens the slot's state holds.

        Raises:
            ConfigError: the slot is not allocated.
        """

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Feed each slot its new tokens; return the logits after the tokens that bring some.

        Args:
            feeds: at least one; each slot at most once.

        Returns:
            Logits [sum of num_logits, vocab] in float32, feed after feed, token after token.

        Raises:
            ConfigError: a slot is not allocated or is given twice, a token is out of range, more
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
        """Return a copy of a slot's state on the host.

        Args:
            slot: an allocated one.
            start: the first token whose keys and values are copied; SSM and convolution states
                are copied whole.

        Raises:
            ConfigError: the slot is not allocated, or holds fewer tokens.
            EnvironmentUnfitError: the host has no memory for it; nothing has changed.
        """

    def restore(self, slot: int, fixed: FixedState, caches: Sequence[CachedTokens]) -> None:
        """Give an empty slot a saved state; it then holds as many tokens as the caches.

        Raises:
            ConfigError: the slot is not allocated, holds tokens, or can't hold so many.
        """


@runtime_checkable
class TakesDrafts(Engine, Protocol):
    """An engine whose slots can be fed tokens that may turn out wrong."""

    @property
    def max_draft(self) -> int:
        """The longest draft in tokens; 0 if the engine was opened for none."""

    def accept(self, counts: Mapping[int, int]) -> None:
        """Keep the first tokens of the drafts that were fed last, and undo the others.

        Until this call a slot's state is that before its draft. A new feed replaces the draft.

        Args:
            counts: slot -> how many tokens of its draft hold.

        Raises:
            ConfigError: a slot has no such draft. No state has changed then.
        """


@runtime_checkable
class TakesAdapters(Engine, Protocol):
    """An engine that was opened with LoRA adapters; each slot may have one of them."""

    @property
    def adapters(self) -> Sequence[str]:
        """The names of the adapters."""

    @property
    def adapter_bytes(self) -> int:
        """Bytes of memory that all adapters take."""

    def adapt(self, slot: int, name: str) -> None:
        """Run an empty slot's tokens through an adapter until the slot is released.

        Raises:
            ConfigError: the slot is not allocated, or there is no such adapter.
        """


def step_by_rows(
    step: Callable[[Sequence[Feed]], npt.NDArray[np.float32]], feeds: Sequence[Feed]
) -> npt.NDArray[np.float32]:
    """Return the logits [rows, vocab] of all rows, from a step that gives one row per feed.

    The tokens before a feed's first row run in one step, the others token by token: exact, and as
    slow as decoding.
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
