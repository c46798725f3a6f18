"""Slots whose state can be saved and given to another slot, by the same rows of the same memory."""

from collections.abc import Sequence
from typing import Protocol

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.kept_state import (
    CachedTokens,
    FixedState,
    SavedState,
    StateBytes,
)
from nemotrt.engines.runtime.state.slots import Slots, States
from nemotrt.errors import ConfigError


class ReadableStates(States, Protocol):
    """The state of all sequences, whose rows can be copied to the host and back."""

    @property
    def state_bytes(self) -> StateBytes:
        """What one row's copy costs on the host."""

    def read(self, row: int, start: int, tokens: int) -> SavedState:
        """Return a copy of a row that holds `tokens` tokens; of caches, from `start` on."""

    def write(self, row: int, fixed: FixedState, caches: Sequence[CachedTokens]) -> None:
        """Give a row that is zero a state that was read, its caches one behind the other."""


class KeptSlots(Slots):
    """The slots of an engine that keeps states."""

    def __init__(self, limits: Limits, vocab_size: int, states: ReadableStates) -> None:
        """Start with every slot free and empty."""
        super().__init__(limits, vocab_size, states)
        self._readable = states

    @property
    def state_bytes(self) -> StateBytes:
        """What a saved state costs on the host."""
        return self._readable.state_bytes

    def save(self, slot: int, start: int = 0) -> SavedState:
        """Return a copy of a slot's state; of its caches, what they have of tokens from `start` on.

        Raises:
            ConfigError: the slot is not allocated, or holds fewer tokens.
        """
        held = self.held_tokens(slot)
        if not 0 <= start <= held:
            raise ConfigError(
                f"slot {slot} holds {held} tokens; it can't be saved from {start} on."
            )
        return self._readable.read(self._table.row_of[slot], start, held)

    def restore(self, slot: int, fixed: FixedState, caches: Sequence[CachedTokens]) -> None:
        """Give an empty slot a state that was saved; it holds the caches' tokens then.

        Raises:
            ConfigError: the slot is not allocated, holds tokens, or can't hold so many.
        """
        held, tokens = self.held_tokens(slot), sum(cache.num_tokens for cache in caches)
        if held:
            raise ConfigError(f"slot {slot} holds {held} tokens; only an empty one is restored.")
        if tokens > self.limits.max_seq_len:
            raise ConfigError(
                f"slot {slot} would hold {tokens} tokens; "
                f"the engine was built for {self.limits.max_seq_len}."
            )
        self._readable.write(self._table.row_of[slot], fixed, caches)
        self.held[slot] = tokens
