"""Compiled loops: rows of weights in, codes and scales out, one pass in cache.

Weights come as uint16 (the bits of bfloat16) or float32. Every quotient is a true float32
division, as in NVIDIA ModelOpt, so that codes and scales are the same to the last bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.jit import compiled, inlined, numba, specialised
from nemotrt.engines.model.numerics import NumberFormat

FP8_MAX = NumberFormat.FP8.largest_code
INT8_MAX = NumberFormat.INT8.largest_code

_U32 = np.uint32
_F32 = np.float32
_ABS = np.uint32(0x7FFFFFFF)
_MAGIC_INT = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves round(x) in the low bits
_MAGIC_E4M3 = np.float32(16384.0)  # its ulp is 2^-9, the step of E4M3's subnormals
_E4M3_NORMAL = np.uint32(121 << 23)  # 2^-6, the smallest normal

Weights = npt.NDArray[np.uint16] | npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


def _widen(value: Any) -> Any:
    """Return a weight as float32; the body depends on the array's type."""
    raise NotImplementedError


@specialised(_widen)
def _widen_by_type(value: Any) -> Callable[[Any], Any]:
    def bfloat16_bits(value: Any) -> Any:
        return _U32(_U32(value) << _U32(16)).view(np.float32)

    def float32(value: Any) -> Any:
        return value

    return bfloat16_bits if isinstance(value, numba.types.Integer) else float32


def widened(weights: Weights) -> Floats:
    """Return weights as float32."""
    if weights.dtype == np.uint16:
        return (weights.astype(np.uint32) << 16).view(np.float32)
    return weights.astype(np.float32, copy=False)


@inlined
def _load(weights: Any, columns: Any, row: Any, bits: Any) -> Any:
    """Fill `row` with one row of weights times `columns` (if any) and return its amax."""
    amax = _U32(0)
    if columns.size:
        for i in range(row.size):
            row[i] = _widen(weights[i]) * columns[i]
    else:
        for i in range(row.size):
            row[i] = _widen(weights[i])
    for i in range(row.size):
        amax = _U32(max(amax, bits[i] & _ABS))
    return _U32(amax).view(np.float32)  # of infinity or NaN if the row holds one


@inlined
def _scale(amax: Any, code_max: Any, smallest: Any) -> Any:
    """Return the scale for `amax`: 1 for zero, as in ModelOpt; NaN stays NaN."""
    if amax == _F32(0):
        return _F32(1)
    if amax < smallest:
        return smallest / code_max
    return amax / code_max


@inlined
def _e4m3(row: Any, bits: Any, codes: Any) -> None:
    """Round each |value| <= 448 to the nearest E4M3 code, ties to even."""
    for i in range(row.size):
        sign = (bits[i] >> _U32(24)) & _U32(0x80)
        size = bits[i] & _ABS
        odd = (size >> _U32(20)) & _U32(1)
        normal = ((size + _U32(0x7FFFF) + odd) >> _U32(20)) - _U32(120 << 3)
        small = _F32(np.abs(row[i]) + _MAGIC_E4M3).view(np.uint32) & _U32(0xF)
        codes[i] = np.uint8((small if size < _E4M3_NORMAL else normal) | sign)


@compiled
def amax_rows(weights: Weights, columns: Floats, amax: Floats) -> None:
    """Write the largest magnitude of each row into `amax`; NaN or inf if a row holds one."""
    row = np.empty(weights.shape[1], np.float32)
    bits = row.view(np.uint32)
    for r in range(weights.shape[0]):
        amax[r] = _load(weights[r], columns, row, bits)


@compiled
def amax_columns(weights: Weights, amax: Floats) -> None:
    """Raise `amax` [columns] to the largest magnitude of each column."""
    for r in range(weights.shape[0]):
        for i in range(amax.size):
            amax[i] = max(amax[i], np.abs(_widen(weights[r, i])))


@compiled
def fp8_per_channel(
    weights: Weights, columns: Floats, codes: Codes, scales: Floats, smallest: np.float32
) -> None:
    """Write E4M3 codes and a scale for each row: amax / 448, amax being at least `smallest`."""
    row = np.empty(weights.shape[1], np.float32)
    bits = row.view(np.uint32)
    for r in range(weights.shape[0]):
        scale = _scale(_load(weights[r], columns, row, bits), _F32(FP8_MAX), smallest)
        scales[r] = scale
        for i in range(row.size):
            row[i] /= scale
        _e4m3(row, bits, codes[r])


@compiled
def fp8_per_tensor(
    weights: Weights, columns: Floats, codes: Codes, scale: np.float32, dropped_bits: int
) -> None:
    """Write E4M3 codes for one given scale.

    The quotient is first rounded to the weights' own type (`dropped_bits` of a float32: 16 for
    bfloat16, 13 for float16, 0 for float32), as ModelOpt's division by a 0-dim tensor does.
    """
    row = np.empty(weights.shape[1], np.float32)
    bits = row.view(np.uint32)
    dropped = _U32(dropped_bits)
    half = _U32((1 << dropped_bits) >> 1)
    for r in range(weights.shape[0]):
        _load(weights[r], columns, row, bits)
        for i in range(row.size):
            row[i] /= scale
        if half:
            for i in range(row.size):
                odd = (bits[i] >> dropped) & _U32(1)
                bits[i] = ((bits[i] + (half - _U32(1)) + odd) >> dropped) << dropped
        _e4m3(row, bits, codes[r])


@compiled
def int8_per_channel(
    weights: Weights,
    columns: Floats,
    codes: Codes,
    scales: Floats,
    smallest: np.float32,
    flipped: int,
) -> None:
    """Write int8 codes (xor `flipped`: 128 gives offset binary) and a scale per row: amax / 127.

    The amax counts as at least `smallest`.
    """
    row = np.empty(weights.shape[1], np.float32)
    bits = row.view(np.uint32)
    flip = _U32(flipped)
    for r in range(weights.shape[0]):
        scale = _scale(_load(weights[r], columns, row, bits), _F32(INT8_MAX), smallest)
        scales[r] = scale
        for i in range(row.size):
            code = _F32(row[i] / scale + _MAGIC_INT).view(np.uint32)
            codes[r, i] = np.uint8(code ^ flip)
