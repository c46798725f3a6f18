"""One chunk of rows at a time: read, convert in cache, store."""

import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import ArtefactError
from nemotrt.quantize.conversion import kernels
from nemotrt.quantize.conversion.layout import Linear

CHUNK_ELEMENTS = 1 << 19  # 1 MiB of bfloat16: stays in cache between read, convert and write
# The smallest normal of each type: the least amax that gives a scale, as in ModelOpt 0.47.
SMALLEST_AMAX = {
    "BF16": np.float32(np.finfo(np.float32).tiny),
    "F16": np.float32(np.finfo(np.float16).tiny),
    "F32": np.float32(np.finfo(np.float32).tiny),
}
DROPPED_BITS = {"BF16": 16, "F16": 13, "F32": 0}  # of a float32, to round to that type


class Sink(Protocol):
    """Takes bytes for a place in the output: writes them, or compares them with what is there."""

    def put(self, offset: int, data: memoryview | bytes) -> None:
        """Take `data` for `offset`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `begin` to `end` of a linear's weight."""

    linear: Linear
    begin: int
    end: int


def split_rows(linear: Linear) -> list[Rows]:
    """Return the chunks of a linear, each about CHUNK_ELEMENTS."""
    step = max(1, CHUNK_ELEMENTS // max(1, linear.num_columns))
    return [
        Rows(linear, begin, min(begin + step, linear.num_rows))
        for begin in range(0, linear.num_rows, step)
    ]


def read_exactly(fd: int, buffer: npt.NDArray[np.uint8], offset: int) -> None:
    """Fill `buffer` from file `fd` at `offset`.

    Raises:
        ArtefactError: the file is shorter than its header said.
    """
    view = buffer.data
    while view:
        count = os.preadv(fd, [view], offset)
        if count == 0:
            raise ArtefactError("the checkpoint's file got shorter while it was read.")
        view, offset = view[count:], offset + count


def rows_amax(fd: int, rows: Rows) -> np.float32:
    """Return the largest magnitude of the rows, times the linear's column factors."""
    amax = np.empty(rows.end - rows.begin, np.float32)
    kernels.amax_rows(read_rows(fd, rows), rows.linear.columns, amax)
    return np.float32(_checked(rows, amax).max(initial=np.float32(0)))


def convert_rows(
    fd: int, rows: Rows, sink: Sink, codes_offset: int, scales_offset: int, scale: np.float32
) -> None:
    """Convert the rows and put codes and per-channel scales; `scale` is the per-tensor one."""
    linear, weights = rows.linear, read_rows(fd, rows)
    codes = np.empty(weights.shape, np.uint8)
    scales = np.empty(weights.shape[0], np.float32)
    if linear.numbers.is_per_tensor:
        dropped = DROPPED_BITS[linear.source.dtype]
        kernels.fp8_per_tensor(weights, linear.columns, codes, scale, dropped)
    else:
        smallest = SMALLEST_AMAX[linear.source.dtype]
        if linear.numbers.format is NumberFormat.FP8:
            kernels.fp8_per_channel(weights, linear.columns, codes, scales, smallest)
        else:
            flipped = 0x80 if linear.is_offset_binary else 0
            kernels.int8_per_channel(weights, linear.columns, codes, scales, smallest, flipped)
        _checked(rows, scales)
        if linear.rows.size:
            scales *= linear.rows[rows.begin : rows.end]
        sink.put(scales_offset + 4 * rows.begin, scales.view(np.uint8).data)
    sink.put(codes_offset + linear.num_columns * rows.begin, codes.reshape(-1).data)


def read_rows(fd: int, rows: Rows) -> kernels.Weights:
    """Return the rows as the kernels want them: bits of bfloat16, or float32."""
    ref = rows.linear.source
    width = rows.linear.num_columns
    item = ref.numpy_dtype.itemsize
    raw = np.empty((rows.end - rows.begin) * width * item, np.uint8)
    read_exactly(fd, raw, ref.offset + rows.begin * width * item)
    if ref.dtype == "BF16":
        return raw.view(np.uint16).reshape(-1, width)
    return raw.view(ref.numpy_dtype).astype(np.float32, copy=False).reshape(-1, width)


def _checked(rows: Rows, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return `values`, one a row, or raise the error that names the first bad row."""
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ArtefactError(
            f"{rows.linear.source.path}: {rows.linear.name} holds NaN or infinity, "
            f"first in row {rows.begin + int(bad[0])}; it can't be quantized."
        )
    return values


def tensor_scale(amax: np.float32) -> np.float32:
    """Return the per-tensor FP8 scale for `amax`: 1 for zero, as in ModelOpt."""
    if amax == 0:
        return np.float32(1)
    return np.float32(max(amax, SMALLEST_AMAX["F32"]) / np.float32(kernels.FP8_MAX))
