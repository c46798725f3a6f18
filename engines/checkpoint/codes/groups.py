"""Rounds weights to 4 bits with a scale for each group of inputs: the one of the least error.

For each group several steps are tried. With the codes that a step gives, the best scale is that of
the least squares, sum(h w q) / sum(h q q), where h is how much an input's weights count; of all
tries the scale with the least error stays, is rounded to bfloat16, and gives the codes. The loops
run over the groups of a row side by side, and add in one order: every machine writes the same bits.

Source of the search: llama.cpp, ggml-quants.c, make_qx_quants, here with positive scales, which all
readers take.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.jit import compiled, inlined

Floats = npt.NDArray[np.float32]
NO_WEIGHTS: Floats = np.empty(0, np.float32)  # every input counts alike
# The steps that are tried, as the code that a group's largest magnitude would get.
FIRST_TRY, LAST_TRY, NUM_TRIES = 5.2, 8.4, 17

_F32 = np.float32
_U32 = np.uint32
_MAGIC_INT = np.float32(12582912.0)  # 1.5 * 2^23: adding it and taking it away rounds to even
_LOWEST, _HIGHEST = np.float32(-8), np.float32(7)
_SMALLEST_SCALE = np.float32(2.0**-126)


@inlined
def _codes_of(value: Any, inverse: Any) -> Any:
    """Return a weight's code as a float."""
    code = _F32(_F32(value * inverse) + _MAGIC_INT) - _MAGIC_INT
    return min(max(code, _LOWEST), _HIGHEST)


@inlined
def _rounded(scale: Any) -> Any:
    """Return the bfloat16 nearest to a positive scale, as float32."""
    bits = _F32(scale).view(np.uint32)
    bits = (bits + _U32(0x7FFF) + ((bits >> _U32(16)) & _U32(1))) & _U32(0xFFFF0000)
    return _U32(bits).view(np.float32)


@inlined
def _spread(row: Any, work: Any, size: Any, num_groups: Any) -> None:
    """Write a row of inputs as [input of the group, group]; the last group is filled with zeros."""
    for g in range(num_groups):
        for i in range(size):
            at = g * size + i
            work[i, g] = row[at] if at < row.size else _F32(0)


@compiled
def round_groups(
    weights: Floats, counts: Floats, size: int, codes: npt.NDArray[np.int8], scales: Floats
) -> None:
    """Write int8 codes [rows, in] from -8 to 7, and scales [rows, groups] that bfloat16 holds.

    A group of zeros has scale 1; one that holds NaN or infinity has a scale that is not finite.

    Args:
        weights: [rows, in].
        counts: how much each input's weights count, [in], or empty.
        size: the inputs of a group.
        codes: written here.
        scales: written here.
    """
    num_groups = scales.shape[1]
    work = np.empty((size, num_groups), np.float32)
    count = np.ones((size, num_groups), np.float32)
    if counts.size:
        _spread(counts, count, size, num_groups)
    amax = np.empty(num_groups, np.float32)
    inverse = np.empty(num_groups, np.float32)
    products = np.empty(num_groups, np.float32)
    squares = np.empty(num_groups, np.float32)
    best = np.empty(num_groups, np.float32)
    for r in range(weights.shape[0]):
        _spread(weights[r], work, size, num_groups)
        scale = scales[r]
        for g in range(num_groups):
            amax[g] = _F32(0)
            best[g] = _F32(-1)
            scale[g] = _F32(1)
        for i in range(size):
            for g in range(num_groups):
                value = np.abs(work[i, g])
                amax[g] = value if value > amax[g] or value != value else amax[g]
        for number in range(NUM_TRIES):
            code = _F32(FIRST_TRY + number * (LAST_TRY - FIRST_TRY) / (NUM_TRIES - 1))
            for g in range(num_groups):
                inverse[g] = code / amax[g]
                products[g] = _F32(0)
                squares[g] = _F32(0)
            for i in range(size):
                for g in range(num_groups):
                    value = work[i, g]
                    found = _codes_of(value, inverse[g])
                    counted = found * count[i, g]
                    products[g] += counted * value
                    squares[g] += counted * found
            for g in range(num_groups):
                gain = products[g] * (products[g] / squares[g])
                if gain > best[g]:
                    best[g] = gain
                    scale[g] = products[g] / squares[g]
        for g in range(num_groups):
            scale[g] = max(_rounded(scale[g]), _SMALLEST_SCALE)
            inverse[g] = _F32(1) / scale[g]
        for i in range(size):
            for g in range(num_groups):
                work[i, g] = _codes_of(work[i, g], inverse[g])
        for g in range(num_groups):
            if not np.isfinite(amax[g]):
                scale[g] = amax[g]
            for i in range(g * size, min((g + 1) * size, weights.shape[1])):
                codes[r, i] = np.int8(work[i - g * size, g])
