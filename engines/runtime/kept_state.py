"""What a kept state is made of: arrays of one size, and caches that grow with the tokens."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# Caches are kept in pieces of so many tokens: to cut an edge copies one piece, no more.
PIECE_TOKENS = 256


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
    """The SSM and convolution states after some token, of one size each.

    The arrays are read after `wait`.
    """

    arrays: tuple[Array, ...]

    def wait(self) -> None:
        """Wait for a device that still copies to the arrays; here none does."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all."""
        return sum(array.nbytes for array in self.arrays)

    def halved(self) -> "FixedState":
        """Return the state with float32 arrays in float16, but for those that it can't hold."""
        self.wait()
        return FixedState(tuple(_halved(array) for array in self.arrays))


@dataclass(frozen=True, slots=True)
class CachedTokens:
    """The keys and values of some tokens in a row; `token_axes` says which axis counts them.

    The arrays are read after `wait`.
    """

    arrays: tuple[Array, ...]
    num_tokens: int
    token_axes: tuple[int, ...]

    def wait(self) -> None:
        """Wait for a device that still copies to the arrays; here none does."""

    def part(self, start: int, end: int) -> "CachedTokens":
        """Return a copy of some of the tokens, in memory of its own."""
        self.wait()
        arrays = (
            array.take(range(start, end), axis)
            for array, axis in zip(self.arrays, self.token_axes, strict=True)
        )
        return CachedTokens(tuple(arrays), end - start, self.token_axes)


@dataclass(frozen=True, slots=True)
class SavedState:
    """A slot's state: all that has one size, and the caches of its last tokens, in pieces."""

    fixed: FixedState
    caches: tuple[CachedTokens, ...]


def first_tokens(caches: tuple[CachedTokens, ...], num_tokens: int) -> tuple[CachedTokens, ...]:
    """Return the caches of the first tokens; what they share with the whole is not copied."""
    return _cut(caches, 0, num_tokens)


def last_tokens(caches: tuple[CachedTokens, ...], start: int) -> tuple[CachedTokens, ...]:
    """Return the caches of the tokens from `start` on; what they share is not copied."""
    return _cut(caches, start, sum(piece.num_tokens for piece in caches))


def _cut(caches: tuple[CachedTokens, ...], start: int, end: int) -> tuple[CachedTokens, ...]:
    found, first = [], 0
    for piece in caches:
        a, b = max(start - first, 0), min(end - first, piece.num_tokens)
        if a < b:
            found.append(piece if b - a == piece.num_tokens else piece.part(a, b))
        first += piece.num_tokens
    return tuple(found)


def _halved(array: Array) -> Array:
    if array.dtype != np.float32:
        return array.copy()  # it may lie in one piece of memory with what is halved
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.isfinite(half).all() else array.copy()


@dataclass(slots=True)
class KeptStats:
    """Counts since the start, and what is held now."""

    limit_bytes: int
    bytes: int = 0  # held now
    states: int = 0  # held now
    prompt_tokens: int = 0  # of admitted requests
    hit_tokens: int = 0  # of these, those whose state was kept
    saves: int = 0
    evictions: int = 0
    preemptions: int = 0
    saved_s: float = 0.0  # what computing the hit tokens would have taken, estimated
