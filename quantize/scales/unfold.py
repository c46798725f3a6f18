"""SmoothQuant's folded factors, found again from a checkpoint and the 16 bit one it came from.

A norm that absorbed factors is the source's divided by them; an up_proj that did has weight scales
that are the plain ones times a power of them (smooth.py has the algebra).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.quantize.conversion.convert import chunks
from nemotrt.quantize.conversion.layout import NO_FACTORS
from nemotrt.quantize.reading.code_rows import code_rows
from nemotrt.quantize.scales.smooth import MAX_EXPONENT, Group, groups

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What smoothing did to one linear; empty where it did nothing."""

    columns: Floats = field(default_factory=lambda: NO_FACTORS)  # [in]: divide its input
    rows: Floats = field(default_factory=lambda: NO_FACTORS)  # [out]: multiply its output
    told_by: str = ""  # the tensor that `columns` were read from


NOTHING = Factors()


def folded_factors(
    source: Checkpoint, tensors: Mapping[str, TensorRef]
) -> tuple[dict[str, Factors], dict[str, tuple[str, ...]]]:
    """Return each smoothed weight's factors, and each changed norm with the weights behind it.

    Factors are what the tensors say, whether sane or not.
    """
    factors: dict[str, Factors] = {}
    norms: dict[str, tuple[str, ...]] = {}
    for group in groups(source.config):
        if group.is_norm:
            columns = _ratio(source[group.absorber], tensors.get(group.absorber))
            dead = source[group.absorber].map() == 0
            if columns.size and dead.any():
                columns[dead] = _dead_factor(source, tensors, group.weights[0], columns, dead)
            if columns.size:
                norms[group.absorber] = group.weights
                factors |= dict.fromkeys(group.weights, Factors(columns, told_by=group.absorber))
            continue
        absorber = factors.get(group.absorber, NOTHING)
        rows, columns = _from_scales(source, tensors, group, absorber)
        if rows.size:
            factors[group.absorber] = replace(absorber, rows=rows)
            scale = f"{group.absorber}_scale"
            factors |= dict.fromkeys(group.weights, Factors(columns, told_by=scale))
    return factors, norms


def _ratio(before: TensorRef, after: TensorRef | None) -> Floats:
    """Return before / after; empty if they are equal, or of another shape."""
    if after is None or after.shape != before.shape or not after.is_float:
        return NO_FACTORS
    old, new = before.map().astype(np.float32), after.map().astype(np.float32)
    if np.array_equal(old, new):
        return NO_FACTORS
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((old == 0) & (new == 0), np.float32(1), old / new).astype(np.float32)


def _dead_factor(
    source: Checkpoint,
    tensors: Mapping[str, TensorRef],
    weight: str,
    columns: Floats,
    dead: npt.NDArray[np.bool_],
) -> float:
    """Return the one factor of all channels whose norm is 0: the norm can't tell, the codes can.

    Each row's scale is fitted to the other channels, since it may hold a factor itself.
    """
    found, ref = code_rows(tensors, weight.removesuffix(".weight")), source[weight]
    if found is None or found.shape != ref.shape:
        return 1.0
    products = squares = 0.0
    values = ref.map()
    for rows in chunks(ref.shape):
        codes, part = found.read(rows), values[rows].astype(np.float32) * columns
        alive = codes[:, ~dead]
        size = (alive * alive).sum(axis=1, keepdims=True)
        scale = (alive * part[:, ~dead]).sum(axis=1, keepdims=True) / np.maximum(size, 1)
        products += float((codes[:, dead] * scale * part[:, dead]).sum(dtype=np.float64))
        squares += float((part[:, dead] ** 2).sum(dtype=np.float64))
    if not (products > 0 and squares > 0):
        return 1.0
    return float(2.0 ** np.rint(np.log2(products / squares)))


def _from_scales(
    source: Checkpoint, tensors: Mapping[str, TensorRef], group: Group, absorber: Factors
) -> tuple[Floats, Floats]:
    """Return the absorber's row factors and the group's column factors, or both empty."""
    module = group.absorber.removesuffix(".weight")
    found = code_rows(tensors, module)
    ref = source[group.absorber]
    if found is None or found.codes.shape[0] != ref.shape[0]:
        return NO_FACTORS, NO_FACTORS
    amax = row_amax(ref, rounded_columns(tensors, module, absorber))
    plain = found.scale_of(amax, ref.dtype)
    plain[amax == 0] = 1  # as a row of zeros is stored
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = -np.log2(found.scales() / plain) / np.float32(group.power)
    exponent = np.nan_to_num(np.rint(exponent), nan=0.0, posinf=0.0, neginf=0.0)
    exponent = np.clip(exponent, -MAX_EXPONENT, MAX_EXPONENT)
    if not exponent.any():
        return NO_FACTORS, NO_FACTORS
    columns = np.exp2(exponent).astype(np.float32)
    return np.exp2(-exponent * group.power).astype(np.float32), columns


def rounded_columns(tensors: Mapping[str, TensorRef], module: str, factors: Factors) -> Floats:
    """Return what the source's columns were multiplied by: folded or unfolded factors."""
    unfolded = tensors.get(f"{module}.pre_quant_scale")
    if unfolded is None:
        return factors.columns
    with np.errstate(divide="ignore"):
        columns: Floats = np.float32(1) / unfolded.map().astype(np.float32)
    return columns * factors.columns if factors.columns.size else columns


def row_amax(ref: TensorRef, columns: Floats) -> Floats:
    """Return the largest magnitude of each row of a weight times `columns`, if there are any."""
    weight, amax = ref.map(), np.empty(ref.shape[0], np.float32)
    for rows in chunks(ref.shape):
        part = np.abs(weight[rows].astype(np.float32))
        if columns.size:
            part *= columns
        amax[rows] = part.max(axis=1, initial=0.0)
    return amax
