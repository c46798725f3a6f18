"""One chunk of rows at a time: read, convert in cache, store."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.groups import NO_WEIGHTS, round_groups
from nemotrt.engines.checkpoint.lora.merged import MergedRef
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import FLOATS, NumberFormat
from nemotrt.errors import ArtefactError
from nemotrt.quantize.conversion import kernels
from nemotrt.quantize.conversion.fp4 import nvfp4
from nemotrt.quantize.conversion.layout import Linear

CHUNK_ELEMENTS = 1 << 19  # 1 MiB of bfloat16: stays in cache between read, convert and write
# The smallest normal of each type: the least amax that gives a scale, as in ModelOpt 0.47.
LIMITS = {item.safetensors: ml_dtypes.finfo(item.numpy) for item in FLOATS}
SMALLEST_AMAX = {word: np.float32(limits.smallest_normal) for word, limits in LIMITS.items()}
# Of a float32, to round to that type.
DROPPED_BITS = {word: LIMITS["F32"].nmant - limits.nmant for word, limits in LIMITS.items()}


def chunks(shape: tuple[int, ...], unit: int = 2) -> Iterator[slice]:
    """Yield the rows of a matrix in parts of about CHUNK_ELEMENTS.

    Parts are of a multiple of `unit` rows, which stay together: two may share bytes.
    """
    step = max(unit, CHUNK_ELEMENTS // max(1, shape[1]) // unit * unit)
    for begin in range(0, shape[0], step):
        yield slice(begin, min(begin + step, shape[0]))


def shortened() -> ArtefactError:
    """Return what to raise for a file that ends before its header said."""
    return ArtefactError(
        "the checkpoint's file got shorter while it was read; "
        "start again when nothing writes to it."
    )


def read_exactly(fd: int, buffer: npt.NDArray[np.uint8], offset: int) -> None:
    """Fill `buffer` from file `fd` at `offset`.

    Raises:
        ArtefactError: the file is shorter than its header said.
    """
    view = buffer.data
    while view:
        count = os.preadv(fd, [view], offset)
        if count == 0:
            raise shortened()
        view, offset = view[count:], offset + count


def rows_amax(fd: int, linear: Linear, rows: slice) -> np.float32:
    """Return the largest magnitude of the rows, times the linear's column factors."""
    amax = np.empty(rows.stop - rows.start, np.float32)
    kernels.amax_rows(read_rows(fd, linear.source, rows), linear.columns, amax)
    return np.float32(_checked(linear, rows, amax).max(initial=np.float32(0)))


def convert_rows(
    fd: int,
    linear: Linear,
    rows: slice,
    put: Callable[[int, memoryview], None],
    codes_offset: int,
    scales_offset: int,
    scale: np.float32,
) -> None:
    """Convert the rows of a linear's weight in file `fd`.

    Args:
        fd: the source.
        linear: the weight and what becomes of it.
        rows: which of its rows.
        put: takes an offset of the output, and the bytes for it.
        codes_offset: where the linear's codes begin.
        scales_offset: where its scales begin, one per row.
        scale: the one scale per tensor, or of its scales, where there is one.
    """
    weights = read_rows(fd, linear.source, rows)
    if linear.numbers.has_second_scale:
        floats = kernels.widened(weights)
        _checked(linear, rows, np.abs(floats).max(axis=1, initial=0))
        both, fine = nvfp4(floats, linear.group_size, scale)
        put(scales_offset + linear.num_groups * rows.start, fine.reshape(-1).data)
        put(codes_offset + linear.num_columns // 2 * rows.start, both.reshape(-1).data)
        return
    if linear.group_size:
        codes, bits = _int4_rows(linear, rows, weights)
        put(
            scales_offset + 2 * linear.num_groups * rows.start, bits.reshape(-1).view(np.uint8).data
        )
        put(codes_offset + linear.num_columns // 2 * rows.start, codes.reshape(-1).data)
        return
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
        _checked(linear, rows, scales)
        if linear.rows.size:
            scales *= linear.rows[rows]
        put(scales_offset + 4 * rows.start, scales.view(np.uint8).data)
    put(codes_offset + linear.num_columns * rows.start, codes.reshape(-1).data)


def _int4_rows(
    linear: Linear, rows: slice, weights: kernels.Weights
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Return rows as bytes of two codes, the first in the lower half, and bfloat16 scales.

    Two are of inputs side by side, plus 8, or of rows.
    """
    if linear.rounded is not None:
        return _stored_int4(linear, *read_rounded(linear.rounded, rows))
    floats = kernels.widened(weights)
    if linear.columns.size:
        floats = floats * linear.columns
    if linear.rows.size:
        floats = floats * linear.rows[rows, None]
    codes = np.empty(floats.shape, np.int8)
    scales = np.empty((len(floats), linear.num_groups), np.float32)
    round_groups(floats, NO_WEIGHTS, linear.group_size, codes, scales)
    _checked(linear, rows, scales.max(axis=1))
    return _stored_int4(linear, codes, scales)


def read_rounded(folder: Path, rows: slice) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return rows of the codes [out, in] and scales [out, groups] that `compensate` left."""
    codes, scales = (np.array(np.load(folder / f"{part}.npy", "r")[rows]) for part in (0, 1))
    return codes, scales


def _stored_int4(
    linear: Linear, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Return codes, two in a byte, and the bits of bfloat16 scales."""
    if linear.pairs_rows:
        first, second = codes[::2], codes[1::2]
    else:
        codes += 8
        first, second = codes[:, ::2], codes[:, 1::2]
    both = (first & 0x0F | second << 4).view(np.uint8)
    return both, (scales.view(np.uint32) >> 16).astype(np.uint16)


def read_rows(fd: int, ref: TensorRef, rows: slice) -> kernels.Weights:
    """Return rows as the kernels want them: bits of bfloat16, or float32."""
    width, item = ref.shape[1], ref.numpy_dtype.itemsize
    if isinstance(ref, MergedRef):
        found = ref.rows(rows)
        return (
            found.view(np.uint16) if ref.dtype == "BF16" else found.astype(np.float32, copy=False)
        )
    raw = np.empty((rows.stop - rows.start) * width * item, np.uint8)
    read_exactly(fd, raw, ref.offset + rows.start * width * item)
    if ref.dtype == "BF16":
        return raw.view(np.uint16).reshape(-1, width)
    return raw.view(ref.numpy_dtype).astype(np.float32, copy=False).reshape(-1, width)


def _checked(
    linear: Linear, rows: slice, values: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return `values`, one per row, or raise the error that names the first bad row."""
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ArtefactError(
            f"{linear.source.path}: {linear.name} holds NaN or infinity, "
            f"first in row {rows.start + int(bad[0])}; it can't be quantized."
        )
    return values


def tensor_scale(amax: np.float32) -> np.float32:
    """Return the per-tensor FP8 scale for `amax`: 1 for zero, as in ModelOpt."""
    if amax == 0:
        return np.float32(1)
    return np.float32(max(amax, SMALLEST_AMAX["F32"]) / np.float32(kernels.FP8_MAX))
