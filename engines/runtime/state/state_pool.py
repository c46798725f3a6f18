"""State buffers in host memory, one row per sequence, that cost only the pages that are touched."""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.runtime.kept_state import (
    PIECE_TOKENS,
    CachedTokens,
    FixedState,
    SavedState,
    StateBytes,
)

FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class StateBuffer:
    """One state tensor, [rows, ...] in anonymous memory, float32 unless it says otherwise.

    `token_axis` is the axis of the row that grows with the held tokens, for KV caches.
    """

    array: npt.NDArray[Any]
    memory: mmap.mmap
    row_bytes: int
    token_axis: int | None

    @classmethod
    def zeros(
        cls,
        rows: int,
        shape: tuple[int, ...],
        token_axis: int | None = None,
        dtype: np.dtype[Any] = FLOAT32,
    ) -> "StateBuffer":
        """Return a buffer of zeros; no page is resident yet."""
        row_elements = int(np.prod(shape))
        row_bytes = row_elements * dtype.itemsize
        memory = mmap.mmap(-1, max(rows * row_bytes, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        array = np.frombuffer(memory, dtype, rows * row_elements).reshape(rows, *shape)
        return cls(array, memory, row_bytes, token_axis)

    def clear(self, row: int, tokens: int) -> None:
        """Make a row that held `tokens` tokens zero again; its pages stay for its next owner.

        Given back and taken again, they cost a prompt of 128 tokens its time once more: on a
        virtual machine each comes from the host (2-core Zen 5, layers at the 9B's widths).
        """
        self.held(row, tokens)[...] = 0

    def held(self, row: int, tokens: int) -> npt.NDArray[Any]:
        """Return the part of a row that holds `tokens` tokens' state."""
        return self.of_tokens(row, 0, tokens)

    def of_tokens(self, row: int, start: int, end: int) -> npt.NDArray[Any]:
        """Return the part of a row that tokens `start` to `end` wrote; all where none is apart."""
        if self.token_axis is None:
            return self.array[row, ...]
        index = [slice(None)] * (self.array.ndim - 1)
        index[self.token_axis] = slice(start, end)
        part: npt.NDArray[Any] = self.array[row][tuple(index)]
        return part

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two rows that hold at most `tokens` tokens."""
        a, b = self.held(first, tokens), self.held(second, tokens)
        kept = a.copy()
        a[...] = b
        b[...] = kept


class StatePool:
    """All state buffers of an engine on the host."""

    def __init__(self, buffers: Iterable[StateBuffer] = ()) -> None:
        """Take the buffers."""
        self.buffers = list(buffers)

    def clear(self, row: int, tokens: int) -> None:
        """Make a row that held `tokens` tokens zero in each buffer."""
        for buffer in self.buffers:
            buffer.clear(row, tokens)

    @property
    def state_bytes(self) -> StateBytes:
        """What one row's copy costs."""
        fixed = sum(buffer.row_bytes for buffer in self.buffers if buffer.token_axis is None)
        caches = (buffer.held(0, 1).nbytes for buffer in self._caches())
        return StateBytes(fixed, sum(caches))

    def _caches(self) -> Iterator[StateBuffer]:
        return (buffer for buffer in self.buffers if buffer.token_axis is not None)

    def read(self, row: int, start: int, tokens: int) -> SavedState:
        """Return a copy of a row that holds `tokens` tokens; of caches, from `start` on."""
        fixed = tuple(b.array[row].copy() for b in self.buffers if b.token_axis is None)
        starts = range(start, tokens, PIECE_TOKENS)
        pieces = (self._piece(row, a, min(a + PIECE_TOKENS, tokens)) for a in starts)
        return SavedState(FixedState(fixed), tuple(pieces))

    def _piece(self, row: int, start: int, end: int) -> CachedTokens:
        """Return a copy of what some tokens have in the caches of a row."""
        arrays = tuple(buffer.of_tokens(row, start, end).copy() for buffer in self._caches())
        axes = tuple(buffer.token_axis or 0 for buffer in self._caches())
        return CachedTokens(arrays, end - start, axes)

    def write(self, row: int, fixed: FixedState, caches: Sequence[CachedTokens]) -> None:
        """Give a row that is zero a state that was read, its caches one behind the other."""
        whole = (buffer for buffer in self.buffers if buffer.token_axis is None)
        for buffer, array in zip(whole, fixed.arrays, strict=True):
            buffer.array[row] = array
        start = 0
        for part in caches:
            end = start + part.num_tokens
            for buffer, array in zip(self._caches(), part.arrays, strict=True):
                buffer.of_tokens(row, start, end)[...] = array
            start = end

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two rows, which hold at most `tokens` tokens, in each buffer."""
        for buffer in self.buffers:
            buffer.swap(first, second, tokens)

    def close(self) -> None:
        """Drop the buffers."""
        self.buffers.clear()
