"""State buffers in host memory, one row a sequence, that cost only the pages that are touched."""

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
        if self.token_axis is None:
            return self.array[row, ...]
        index = [slice(None)] * (self.array.ndim - 1)
        index[self.token_axis] = slice(0, tokens)
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

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two rows, which hold at most `tokens` tokens, in each buffer."""
        for buffer in self.buffers:
            buffer.swap(first, second, tokens)

    def close(self) -> None:
        """Drop the buffers."""
        self.buffers.clear()
