"""Rows of weights as blocks of ggml's: Q8_0 to the bit as ggml does, Q4_0 by our own search.

Source: llama.cpp 11434, gguf-py/gguf/quants.py, Q8_0 and Q4_0.
"""

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.groups import NO_WEIGHTS, round_groups
from nemotrt.engines.checkpoint.codes.jit import compiled
from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD, GROUP
from nemotrt.quantize.conversion.kernels import INT8_MAX, Weights, widened

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
SCALE_BYTES = 2  # a float16 before the codes of each block
_F32 = np.float32


@compiled
def _q8_0(values: Floats, blocks: npt.NDArray[np.int8], scales: Floats) -> None:
    """Write codes into blocks [rows, groups, 34], behind the scale; scales [rows, groups]."""
    for r in range(values.shape[0]):
        for g in range(scales.shape[1]):
            amax = _F32(0)
            for i in range(GROUP):
                value = np.abs(values[r, g * GROUP + i])
                amax = value if value > amax or value != value else amax
            scale = _F32(amax / _F32(INT8_MAX))
            scales[r, g] = scale
            inverse = _F32(0) if scale == _F32(0) else _F32(_F32(1) / scale)
            for i in range(GROUP):
                value = _F32(values[r, g * GROUP + i] * inverse)
                size = np.abs(value)
                code = np.floor(size)  # ties go away from zero, as roundf's
                code = code + _F32(1) if size - code >= _F32(0.5) else code
                blocks[r, g, SCALE_BYTES + i] = np.int8(code if value > _F32(0) else -code)


def q8_0(weights: Weights) -> tuple[Bytes, Floats]:
    """Return rows as blocks, [rows, bytes], and the scales [rows, groups] before they were 16 bit.

    A scale is not finite where the group holds NaN or infinity.
    """
    values = widened(weights)
    rows, columns = values.shape
    scales = np.empty((rows, columns // GROUP), np.float32)
    blocks = _blocks("Q8_0", *scales.shape)
    _q8_0(values, blocks.view(np.int8), scales)
    return _with_scales(blocks, scales), scales


def q4_0(weights: Weights) -> tuple[Bytes, Floats]:
    """Return rows as blocks, [rows, bytes], and the scales: the codes and scales of int4-wo.

    Its scales have eight bits of precision, which a float16 holds.
    """
    values = widened(weights)
    rows, columns = values.shape
    scales = np.empty((rows, columns // GROUP), np.float32)
    codes = np.empty(values.shape, np.int8)
    round_groups(values, NO_WEIGHTS, GROUP, codes, scales)
    return packed_q4_0(codes, scales), scales


def packed_q4_0(codes: npt.NDArray[np.int8], scales: Floats) -> Bytes:
    """Return int4-wo's codes [rows, columns] and scales [rows, groups] as blocks, [rows, bytes]."""
    halves = (codes + np.int8(8)).view(np.uint8).reshape(len(codes), -1, 2, GROUP // 2)
    blocks = _blocks("Q4_0", *scales.shape)
    blocks[:, :, SCALE_BYTES:] = halves[:, :, 0] | halves[:, :, 1] << 4
    return _with_scales(blocks, scales)


def _blocks(word: str, rows: int, groups: int) -> Bytes:
    return np.empty((rows, groups, BY_WORD[word].block_bytes), np.uint8)


def _with_scales(blocks: Bytes, scales: Floats) -> Bytes:
    """Return blocks with their scales before the codes, [rows, bytes]."""
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at them
        half = scales.astype(np.float16)
    blocks[:, :, :SCALE_BYTES] = half.view(np.uint8).reshape(*scales.shape, SCALE_BYTES)
    return blocks.reshape(len(blocks), -1)


ENCODERS = {"Q8_0": q8_0, "Q4_0": q4_0}
LARGEST_SCALE = float(np.finfo(np.float16).max)
