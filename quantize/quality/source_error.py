"""A quantized checkpoint against the 16 bit one it came from: error band, and bytes that stayed.

Rounding to the nearest code moves a weight by at most half a step, whatever the distribution:

    int8          amax / 254, amax being its row's
    E4M3          |w| / 16, or amax / 448 / 1024 below the least normal code

    int4          half its group's step; where the search has cut, what it cut off
    compensated   more than that, but a row at most COMPENSATED of its norm

so a scale, channel or tensor that is not the source's shows. A lower bound does not exist: weights
that are codes already have no error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.linear_weight import spread
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.quantize.conversion.convert import chunks
from nemotrt.quantize.conversion.layout import NO_FACTORS
from nemotrt.quantize.reading.code_rows import CodeRows, code_rows
from nemotrt.quantize.recipes.selection import sharing_scale
from nemotrt.quantize.scales.amax import has_one_scale, tensor_amax
from nemotrt.quantize.scales.unfold import (
    NOTHING,
    Factors,
    folded_factors,
    rounded_columns,
    row_amax,
)

Floats = npt.NDArray[np.float32]
E4M3_HALF_ULP, E4M3_HALF_SUBNORMAL = 2.0**-4, 2.0**-10
CUT = (
    0.25  # of a group's amax, more than the search cuts off: its steps are amax / 5.2 to amax / 8.4
)
# Of a row's norm. Source: twice the most seen; benchmarks/four_bits.py --compensation has 0.073 to
# 0.154 on the trained tiny model, 2026-11-30. Inputs more alike than those may move a row further.
COMPENSATED = 0.3
SLACK = 1.01  # of a step: scales that other tools round to bfloat16
DOUBLE_ROUNDING = 2.0**-8  # of a weight: ModelOpt rounds FP8's quotient to bfloat16 first


def compare_with_source(
    source: Checkpoint,
    tensors: Mapping[str, TensorRef],
    modules: list[str],
    precision: Precision,
    progress: Callable[[int], None] = lambda num_modules: None,
    *,
    is_compensated: bool = False,
) -> tuple[dict[str, float], list[str]]:
    """Compare `tensors`, of which `modules` are quantized, with the checkpoint `source`.

    Where int4 `is_compensated`, a weight may move for the errors of those before it.
    Return the relative RMS error of each quantized module's weight, and what can't be.
    Memory is that of a chunk of rows, and a few vectors.

    Raises:
        ConfigError: `source` is quantized itself.
    """
    is_smoothed = precision.is_smoothed
    factors, norms = folded_factors(source, tensors) if is_smoothed else ({}, {})
    faults = [fault for norm in norms for fault in _norm_faults(norm, norms, factors, modules)]
    errors, groups = {}, sharing_scale(source.config)
    for module in modules:
        weight = f"{module}.weight"
        group = groups.get(weight, ())
        sharing = [source[name] for name in group] if has_one_scale(tensors, group) else []
        errors[module], fault = weight_error(
            source[weight],
            tensors,
            module,
            factors.get(weight, NOTHING),
            sharing,
            is_compensated=is_compensated,
        )
        faults += [fault] if fault else []
        progress(1)
    quantized = {f"{module}.weight" for module in modules}
    for name, ref in source.carried().items():
        copy = tensors.get(name)
        if name in quantized or name in norms:
            continue
        if copy is None or not ref.is_same(copy):
            faults.append(f"{name} is not quantized, but is not the source's")
    finite = {module: error for module, error in errors.items() if np.isfinite(error)}
    return finite, faults


def weight_error(
    ref: TensorRef,
    tensors: Mapping[str, TensorRef],
    module: str,
    factors: Factors,
    sharing: Sequence[TensorRef] = (),
    *,
    is_compensated: bool = False,
) -> tuple[float, str | None]:
    """Return the relative RMS error of `module`'s weight, and its worst channel if it can't be.

    The weight is compared as it was rounded: times its smoothing factors. One scale per tensor is
    of the largest weight of all in `sharing`. NaN where there is nothing to compare.
    """
    found = code_rows(tensors, module)
    if found is None:
        return float("nan"), f"{module} has no scales to compare its weight with the source's"
    if found.shape != ref.shape:
        return float("nan"), f"{module} is {list(found.shape)}, the source's {list(ref.shape)}"
    columns = rounded_columns(tensors, module, factors)
    amax = row_amax(ref, columns)
    if found.is_per_tensor:
        others = max((float(tensor_amax(other)) for other in sharing), default=0.0)
        amax = np.full_like(amax, max(amax.max(initial=0.0), others))
    steps = found.scale_of(amax, ref.dtype)
    is_grouped = found.code is NumberFormat.INT4
    scales = NO_FACTORS if is_grouped else found.scales()
    if factors.rows.size:
        scales = scales / factors.rows
    squares, excess = np.zeros(2), np.empty(ref.shape[0], np.float32)
    weight = ref.map()
    for rows in chunks(ref.shape):
        part = weight[rows].astype(np.float32)
        if columns.size:
            part *= columns
        difference = found.read(rows)
        own = found.group_scales(rows) if is_grouped else scales[rows, None]
        difference *= spread(own, ref.shape[1]) if is_grouped else own
        difference -= part
        np.abs(part, out=part)
        np.abs(difference, out=difference)
        squares += [np.vdot(value, value) for value in (difference, part)]
        if is_grouped and is_compensated:
            norms = (np.linalg.norm(value, axis=1) for value in (difference, part))
            excess[rows] = next(norms) - np.float32(COMPENSATED) * next(norms)
            continue
        if is_grouped:
            difference -= _group_bound(part, own)
        else:
            difference -= _bound(found, part, steps[rows, None])
        excess[rows] = difference.max(axis=1, initial=0.0)
    error = float(np.sqrt(squares[0] / squares[1])) if squares[1] else float(squares[0] > 0)
    worst = int(np.argmax(np.where(np.isnan(excess), np.inf, excess)))
    if excess[worst] <= 0:
        return error, None
    smoothing = f", smoothed as {factors.told_by} says" if factors.told_by else ""
    return error, (
        f"{module}, channel {worst}: differs from the source{smoothing} by more than rounding can "
        f"(relative error of the whole {error:.3g})"
    )


def _bound(found: CodeRows, size: Floats, steps: Floats) -> Floats:
    """Return how far rounding can move a weight of magnitude `size`."""
    if found.code.kind == "int":
        return steps * np.float32(SLACK / 2)
    half = np.maximum(size * np.float32(E4M3_HALF_ULP), steps * np.float32(E4M3_HALF_SUBNORMAL))
    result: Floats = half * np.float32(SLACK) + size * np.float32(DOUBLE_ROUNDING)
    return result


def _group_bound(size: Floats, scales: Floats) -> Floats:
    """Return how far the search can move weights of magnitudes `size`, of groups with `scales`.

    A wrong scale shows as well: no weight loses more than CUT of its group's largest.
    """
    columns, groups = size.shape[1], scales.shape[1]
    starts = np.arange(0, columns, -(-columns // groups))
    amax, steps = np.maximum.reduceat(size, starts, axis=1), spread(scales, columns)
    bound = np.maximum(steps * np.float32(SLACK / 2), size - steps * np.float32(7 / SLACK))
    result: Floats = np.minimum(bound, spread(amax, columns) * np.float32(CUT))
    return result


def _norm_faults(
    norm: str, norms: dict[str, tuple[str, ...]], factors: dict[str, Factors], modules: list[str]
) -> Iterator[str]:
    """Yield why a norm that is not the source's can't have absorbed smoothing factors."""
    columns = factors[norms[norm][0]].columns
    with np.errstate(invalid="ignore"):
        mantissa, _ = np.frexp(columns)
    if not (np.isfinite(columns).all() and (mantissa == 0.5).all()):
        channel = int(np.argmax(~np.isfinite(columns) | (mantissa != 0.5)))
        yield f"{norm}, channel {channel}: not the source's over a power of two"
    for weight in norms[norm]:
        if weight.removesuffix(".weight") not in modules:
            yield f"{norm} is not the source's, but {weight} behind it is"
