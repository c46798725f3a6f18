"""A device that chooses tokens itself and is a step ahead of the host; its steps take a fixed time.

Its clock is all that it is: a step ends when the device's queue would end it, whatever the host did
meanwhile, so what the host makes it wait is seen and nothing else. It costs the host next to no
CPU: its tokens are the first that a mask allows, or stand ready.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.pipeline import Place
from nemotrt.engines.runtime.sampling.draws import Turn
from nemotrt.engines.runtime.sampling.guide import Allowed, Forced
from nemotrt.engines.runtime.sampling.params import SampledToken, Score
from nemotrt.engines.runtime.state.slot_table import SlotTable
from nemotrt.errors import ConfigError


class AheadDevice:
    """The Engine, and its own Pipeline."""

    is_ahead = True

    def __init__(self, limits: Limits, vocab_size: int, step_s: float, tokens: Sequence[int]):
        """Take what it says again and again, and the time of a step."""
        self.limits = limits
        self.vocab_size = vocab_size
        self._choices = [SampledToken(token) for token in tokens]
        self._slots = SlotTable(limits.max_batch_size)
        self._step_s = step_s
        self._computed_s = 0.0  # when the step that was begun last is, or was, computed
        self._chosen_s = 0.0  # when its tokens are, or were, chosen
        self._given: list[SampledToken | None] = []
        self._num_chosen = 0
        self.waited_s = 0.0  # that the device had nothing to do, since the first step

    def pipeline(self) -> "AheadDevice":
        """Return itself."""
        return self

    def open(self, *arguments: Any) -> Place:
        """Return a free slot."""
        return Place(self._slots.allocate(), None)

    def release(self, place: Place) -> None:
        """Free the slot."""
        self._slots.release(place.slot)

    def held_tokens(self, slot: int) -> int:
        """Nothing is held."""
        return 0

    def begin(self, feeds: Sequence[Feed]) -> None:
        """Let a step begin once the tokens before it are chosen."""
        now_s = time.perf_counter()
        if self._chosen_s:
            self.waited_s += max(0.0, now_s - self._chosen_s)
        self._computed_s = max(now_s, self._chosen_s) + self._step_s

    def score(self, first: int, tokens: Sequence[int], num_top: int) -> list[Score | None]:
        """Refuse: it has no logits."""
        raise ConfigError("this device scores no prompts.")

    def choose(self, turns: Sequence[Turn]) -> None:
        """Choose when the step is computed, or now if that is later: the masks came late."""
        now_s = time.perf_counter()
        self.waited_s += max(0.0, now_s - self._computed_s)
        self._chosen_s = max(now_s, self._computed_s)
        self._given = [self._one(turn) for turn in turns]

    def _one(self, turn: Turn) -> SampledToken:
        match turn.rule:
            case Forced(token):
                return SampledToken(token)
            case Allowed() as allowed:
                return SampledToken(_first(allowed))
        self._num_chosen += 1
        return self._choices[self._num_chosen % len(self._choices)]

    def chosen(self) -> list[SampledToken | None]:
        """Return the tokens when they are chosen."""
        time.sleep(max(0.0, self._chosen_s - time.perf_counter()))
        return self._given

    def close(self) -> None:
        """Nothing to free."""


def _first(allowed: Allowed) -> int:
    """Return the first token that may come."""
    byte = int(np.argmax(allowed.bits != 0))
    bits = int(allowed.bits[byte])
    return 8 * byte + (bits & -bits).bit_length() - 1
