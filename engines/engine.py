"""What a backend offers once an engine is open: slots of state, and one step over some of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True, slots=True)
class Feed:
    """New tokens for one slot: a prompt chunk, or the last sampled token."""

    slot: int
    tokens: Sequence[int]


class Engine(Protocol):
    """Owns the state of up to `limits.max_batch_size` sequences; not thread-safe."""

    @property
    def limits(self) -> Limits:
        """The limits that the engine was built for."""

    @property
    def vocab_size(self) -> int:
        """Number of logits."""

    def allocate(self) -> int:
        """Return a free slot with empty state; raises ConfigError when none is free."""

    def release(self, slot: int) -> None:
        """Free a slot; nothing of its state is visible to the next owner."""

    def held_tokens(self, slot: int) -> int:
        """Tokens that the slot's state holds."""

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Feed each slot its new tokens; return [len(feeds), vocab], each after its last token.

        Raises:
            ConfigError: a slot is not allocated or given twice, a token is out of range, or a
                limit is exceeded. No state has changed then.
        """

    def close(self) -> None:
        """Free everything."""


def check_feeds(engine: Engine, feeds: Sequence[Feed]) -> None:
    """Raise ConfigError unless the engine can take `feeds` in one step."""
    limits = engine.limits
    slots = [feed.slot for feed in feeds]
    if len(set(slots)) != len(slots):
        raise ConfigError("a slot is fed twice in one step.")
    for feed in feeds:
        held = engine.held_tokens(feed.slot)
        count = len(feed.tokens)
        if not 1 <= count <= limits.chunk_tokens:
            raise ConfigError(
                f"slot {feed.slot} is fed {count} tokens; a step takes 1 to {limits.chunk_tokens}."
            )
        if held + count > limits.max_seq_len:
            raise ConfigError(
                f"slot {feed.slot} would hold {held + count} tokens; "
                f"the engine was built for {limits.max_seq_len}."
            )
        if not (min(feed.tokens) >= 0 and max(feed.tokens) < engine.vocab_size):
            raise ConfigError(f"slot {feed.slot}: token ids must be 0 to {engine.vocab_size - 1}.")
