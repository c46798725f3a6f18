"""What a kept state is made of: arrays of one size, and caches that grow with the tokens."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class StateBytes:
    """What a kept state costs: whatever its length, and for each token."""

    per_sequence: int
    per_token: int

    def of(self, num_tokens: int) -> int:
        """Bytes of a whole state of so many tokens."""
        return self.per_sequence + num_tokens * self.per_token


@dataclass(frozen=True, slots=True)
class FixedState:
    """The SSM and convolution states after some token, of one size each."""

    arrays: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class CachedTokens:
    """The keys and values of some tokens in a row; `token_axes` says which axis counts them."""

    arrays: tuple[Array, ...]
    num_tokens: int
    token_axes: tuple[int, ...]

    def split(self, num_tokens: int) -> tuple["CachedTokens", "CachedTokens"]:
        """Return the first tokens and the rest, each in memory of its own: either can be freed."""
        pairs = [
            np.split(array, [num_tokens], axis)
            for array, axis in zip(self.arrays, self.token_axes, strict=True)
        ]
        counts = num_tokens, self.num_tokens - num_tokens
        first, rest = (
            CachedTokens(tuple(pair[side].copy() for pair in pairs), count, self.token_axes)
            for side, count in enumerate(counts)
        )
        return first, rest


@dataclass(frozen=True, slots=True)
class SavedState:
    """A slot's state: all that has one size, and the caches of its last tokens."""

    fixed: FixedState
    caches: CachedTokens
