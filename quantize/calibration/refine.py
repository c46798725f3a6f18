"""Lowers the error of weights rounded to groups, scale by scale and code by code.

GPTQ decides each code once, when the later ones are not known. Here every scale of a row is fitted
again to the codes that stand, and every code to all the others, so that the error of the output
falls with each step. The format and the bytes stay what they are.

Source: cyclic coordinate descent on the layer's squared error, as in CDQuant (Nair and Suggala,
2024), with the scales of groups as further coordinates.
"""

import numpy as np
import numpy.typing as npt

from nemotrt.engines.model.numerics import NumberFormat

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
LOWEST, HIGHEST = -8, 7


def refine(
    weight: Floats, codes: Codes, scales: Floats, moments: Floats, group_size: int, sweeps: int
) -> None:
    """Change `codes` [rows, in] and `scales` [rows, groups] in place to stand closer for a weight.

    Args:
        weight: the exact weight, [rows, in].
        codes: int8 codes from -8 to 7.
        scales: positive, and bfloat16 holds them; so they stay.
        moments: the damped sum of products of the inputs, [in, in].
        group_size: inputs that share a scale.
        sweeps: how many times all scales and codes are gone through.
    """
    values = codes * np.repeat(scales, group_size, axis=1)[:, : weight.shape[1]]
    pull = (weight - values) @ moments  # half of what the error falls per change of a value
    for _ in range(sweeps):
        for place, begin in enumerate(range(0, weight.shape[1], group_size)):
            group = slice(begin, min(begin + group_size, weight.shape[1]))
            moved = _refine_group(
                pull[:, group], codes[:, group], scales[:, place], moments[group, group]
            )
            pull -= moved @ moments[group]


def _refine_group(pull: Floats, codes: Codes, scale: Floats, moments: Floats) -> Floats:
    """Change a group's codes and scale; return how far its values moved, [rows, inputs].

    Scales are fitted where codes have changed: the search found the others' with their codes.
    """
    pull, before = pull.copy(), codes.copy()
    old, own = codes * scale[:, None], codes.astype(np.float32)
    for i in range(codes.shape[1]):
        step = pull[:, i] / (moments[i, i] * scale)
        code = np.clip(np.rint(own[:, i] + step), LOWEST, HIGHEST)
        pull -= ((code - own[:, i]) * scale)[:, None] * moments[i]
        codes[:, i] = own[:, i] = code
    size = ((own @ moments) * own).sum(axis=1)
    fitted = scale + (pull * own).sum(axis=1) / np.where(size > 0, size, 1)
    fitted = fitted.astype(NumberFormat.BF16.numpy).astype(np.float32)
    may = (codes != before).any(axis=1) & (size > 0) & (fitted > 0) & np.isfinite(fitted)
    scale[may] = fitted[may]
    moved: Floats = own * scale[:, None] - old
    return moved
