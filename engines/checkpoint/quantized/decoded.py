"""A weight that is stored as codes and is read as float32, some rows at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.packed import unsigned
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef

Floats = npt.NDArray[np.float32]
Rows = Callable[[slice], Floats]
ALL = slice(None)


@dataclass(frozen=True, slots=True)
class DecodedRef(TensorRef):
    """A tensor whose values are computed from `stored` tensors; its place is the first one's."""

    decode: Rows
    stored: tuple[TensorRef, ...]

    def rows(self, part: slice) -> Floats:
        """Return rows, decoded into memory."""
        start, stop, _ = part.indices(self.shape[0])
        with np.errstate(invalid="ignore", over="ignore"):  # whoever takes floats checks them
            return self.decode(slice(start, max(start, stop)))

    def map(self) -> Floats:
        """Return all of it, decoded into memory."""
        return self.rows(ALL)

    def read(self, start: int, num_bytes: int) -> bytes:
        """Return bytes of the stored tensors, one behind the other."""
        found, end = b"", start + num_bytes
        for ref in self.stored:
            if start < ref.num_bytes and end > 0:
                first = max(start, 0)
                found += TensorRef.read(ref, first, min(end, ref.num_bytes) - first)
            start, end = start - ref.num_bytes, end - ref.num_bytes
        return found

    @property
    def parts(self) -> tuple[TensorRef, ...]:
        """The stored tensors that the values are made of."""
        return self.stored


def decoded(
    name: str, shape: tuple[int, ...], stored: tuple[TensorRef, ...], decode: Rows
) -> DecodedRef:
    """Return the tensor `name` of float32 [rows, ...] that `decode` makes of `stored`."""
    first = stored[0]
    num_bytes = sum(ref.num_bytes for ref in stored)
    return DecodedRef(name, "F32", shape, first.path, first.offset, num_bytes, decode, stored)


@dataclass(frozen=True, slots=True)
class Scaled:
    """Codes [out, in] times the scales of their blocks, less zero points where there are any.

    Functions give rows: `codes` [rows, in], `scales` and `zeros` [rows, groups]. `group_of` says
    which group an input is in; without it groups are of equal sizes, in order.
    """

    shape: tuple[int, int]
    codes: Rows
    scales: Rows
    zeros: Rows | None = None
    group_of: npt.NDArray[np.int64] | None = None
    columns: Floats | None = None  # a factor for each input

    def __call__(self, part: slice) -> Floats:
        """Return rows of the weight."""
        values = self.codes(part).astype(np.float32)
        scales = self.scales(part)
        if self.zeros is not None:
            values = self._by_group(np.subtract, values, self.zeros(part))
        values = self._by_group(np.multiply, values, scales)
        return values if self.columns is None else values * self.columns

    def _by_group(self, combine: Any, values: Floats, groups: Floats) -> Floats:
        """Return values [rows, in] combined with those of their groups [rows, groups]."""
        rows, width = values.shape
        if self.group_of is not None:
            result: Floats = combine(values, groups[:, self.group_of])
            return result
        size = -(-width // groups.shape[1])
        if width % groups.shape[1]:  # the last group is smaller
            result = combine(values, np.repeat(groups, size, axis=1)[:, :width])
            return result
        blocks = values.reshape(rows, groups.shape[1], size)
        result = combine(blocks, groups[:, :, None]).reshape(rows, width)
        return result


def rows_of(ref: TensorRef, block_rows: int = 1) -> Rows:
    """Return a function that gives rows of scales as float32; `block_rows` rows share each.

    `block_rows` 0 stands for all rows. A tensor of one axis has a value for each row, or for all.
    """

    def rows(part: slice) -> Floats:
        stored = ref.map()
        values = stored.reshape(stored.shape[0] if stored.ndim else 1, -1)
        number = np.arange(part.start, part.stop)
        number = number // block_rows if block_rows else number * 0
        return np.asarray(values[number]).astype(np.float32)

    return rows


# Of the sixteen codes E2M1. Source: OCP microscaling formats, table 5.
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
FP4_VALUES = np.concatenate([E2M1, -E2M1])


def fp4_rows(ref: TensorRef, part: slice) -> Floats:
    """Return rows of E2M1 codes, two in a byte, as the numbers that they are."""
    return FP4_VALUES[unsigned(ref.map()[part], 4)]


def plain_rows(ref: TensorRef, part: slice) -> Floats:
    """Return rows of codes that are numbers of their type."""
    values: Floats = ref.rows(part).astype(np.float32)
    return values
