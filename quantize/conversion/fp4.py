"""Rows of weights as NVFP4: E2M1 codes two to a byte, an E4M3 scale a group, one for the tensor.

Source: NVIDIA ModelOpt 0.47, quantization/qtensor/nvfp4_tensor.py; codes and scales are the same to
the bit. OCP microscaling formats, table 5.
"""

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.jit import compiled
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.quantize.conversion.kernels import FP8_MAX

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
FP4_MAX = NumberFormat.FP4.largest_code
LEAST_SCALE = np.float32(2.0**-9)  # E4M3's smallest number: a scale is never zero
LEAST_SECOND = np.finfo(np.float32).tiny
_F32 = np.float32


def second_scale(amax: np.float32) -> np.float32:
    """Return the tensor's scale for its largest magnitude; 1 for zero."""
    if amax == 0:
        return np.float32(1)
    return max(np.float32(amax / np.float32(FP4_MAX * FP8_MAX)), LEAST_SECOND)


def nvfp4(values: Floats, size: int, second: np.float32) -> tuple[Bytes, Bytes]:
    """Return codes [rows, in / 2], the first of two in the lower half; scales [rows, groups]."""
    rows, columns = values.shape
    amax = np.abs(values).reshape(rows, columns // size, size).max(axis=2)
    scales = amax / (np.float32(FP4_MAX) * second)
    scales[scales == 0] = 1
    stored = scales.clip(LEAST_SCALE, np.float32(FP8_MAX)).astype(ml_dtypes.float8_e4m3fn)
    codes = np.empty((rows, columns // 2), np.uint8)
    _e2m1(values, stored.astype(np.float32) * second, size, codes)
    return codes, stored.view(np.uint8)


@compiled
def _e2m1(values: Floats, scales: Floats, size: int, codes: Bytes) -> None:
    """Write the code nearest to each quotient, ties to even; beyond the largest, the largest."""
    for r in range(values.shape[0]):
        for i in range(values.shape[1]):
            value = _F32(values[r, i] / scales[r, i // size])
            amount = np.abs(value)
            code = (
                (amount > _F32(0.25)) + (amount >= _F32(0.75)) + (amount > _F32(1.25))
                + (amount >= _F32(1.75)) + (amount > _F32(2.5)) + (amount >= _F32(3.5))
                + (amount > _F32(5))
            )  # fmt: skip
            code = code + 8 if value < _F32(0) else code
            if i % 2:
                codes[r, i // 2] = np.uint8(codes[r, i // 2] | code << 4)
            else:
                codes[r, i // 2] = np.uint8(code)
