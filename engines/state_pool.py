"""State buffers in host memory, one row a sequence, that cost only the pages that are touched."""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE_BYTES = mmap.PAGESIZE
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
        # private: MADV_DONTNEED zeroes private memory only
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        memory = mmap.mmap(-1, max(rows * row_bytes, 1), flags=flags)
        array = np.frombuffer(memory, dtype, rows * row_elements).reshape(rows, *shape)
        return cls(array, memory, row_bytes, token_axis)

    def clear(self, row: int) -> None:
        """Make a row zero again and give its whole pages back to the system."""
        start, end = row * self.row_bytes, (row + 1) * self.row_bytes
        first = -(-start // PAGE_BYTES) * PAGE_BYTES
        last = end // PAGE_BYTES * PAGE_BYTES
        if first >= last:
            self.array[row] = 0
            return
        self.memory.madvise(mmap.MADV_DONTNEED, first, last - first)
        flat = self.array[row].reshape(-1)
        flat[: (first - start) // flat.itemsize] = 0
        flat[flat.size - (end - last) // flat.itemsize :] = 0

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
