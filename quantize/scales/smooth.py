"""SmoothQuant, folded: factors that move outliers from activations into weights for nothing.

Source: SmoothQuant (arXiv 2211.10438), s = amax(x)^alpha / amax(w)^(1 - alpha) per input channel.
Dividing a linear's input by s is free where what comes before can absorb it:

    norm -> in_proj, up_proj, q, k, v     the norm's weight; s is a power of two, so this is exact
    gated norm -> out_proj                the same, as the weight comes after the normalization
    up_proj, relu^2 -> down_proj          relu(x)^2 / s = relu(x / sqrt(s))^2: up_proj's row scales
    up_proj * silu(gate) -> down_proj     up_proj's row scales
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.graph.cost import Kind, costs
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.calibration import Calibration
from nemotrt.quantize.conversion.plan import Adjustments
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection
from nemotrt.quantize.scales.amax import column_amax

Floats = npt.NDArray[np.float32]
MAX_EXPONENT = 12  # factors stay within 2^-12 .. 2^12, far from bfloat16's range


@dataclass(frozen=True, slots=True)
class Group:
    """Linears that share an input, and the tensor that can absorb the input's factors."""

    weights: tuple[str, ...]
    absorber: str
    is_norm: bool  # else a linear's rows
    power: float = 1.0  # the absorber takes factor^-power


def groups(config: ModelConfig) -> Iterator[Group]:
    """Yield the groups of the described model, in its order.

    They are the linears that read a norm's result, or an activation's; of the activation's inputs
    the last is the one that it multiplies by.
    """
    operators = costs(config)
    readers: dict[int, list[str]] = {}
    for operator in operators:
        if operator.kind is Kind.LINEAR and not operator.is_last:
            readers.setdefault(operator.inputs[0], []).append(operator.weight)
    for number, weights in readers.items():
        source = operators[number]
        if source.kind in (Kind.NORM, Kind.GATED_NORM):
            yield Group(tuple(weights), source.weight, is_norm=True)
        elif source.kind is Kind.ACTIVATION:
            power = 0.5 if len(source.inputs) == 1 else 1.0  # relu^2, else up_proj * silu(gate)
            up = operators[source.inputs[-1]].weight
            yield Group(tuple(weights), up, is_norm=False, power=power)


def smooth(
    checkpoint: Checkpoint,
    selection: Selection,
    recipe: Recipe,
    calibration: Calibration,
    *,
    fold: bool = True,
    progress: Callable[[int], None] = lambda num_bytes: None,
) -> tuple[Adjustments, dict[str, Floats]]:
    """Return the adjustments that smooth every group, and each weight's amax(x / s) per channel.

    With `fold` false the factors are stored as `pre_quant_scale` and nothing else changes.

    Raises:
        ConfigError: a norm's type (float16, say) has no room for the factors.
    """
    result = Adjustments()
    smoothed: dict[str, Floats] = {}
    chosen = set(selection.weights)
    for group in groups(checkpoint.config):
        absorbs = group.is_norm or group.absorber in chosen
        if not (absorbs and chosen.issuperset(group.weights)):
            continue
        seen = calibration[group.weights[0]].channel_amax
        columns = np.zeros_like(seen)
        for weight in group.weights:
            columns = np.maximum(columns, column_amax(checkpoint[weight], progress))
        factors = _factors(columns, seen, recipe.smoothquant_alpha or 0.0)
        for weight in group.weights:
            module = weight.removesuffix(".weight")
            result.columns[module] = factors
            smoothed[weight] = (seen / factors).astype(np.float32)
            if not fold:
                result.pre_quant_scales[module] = np.float32(1) / factors
        if fold:
            _absorb(checkpoint, group, factors, result)
    return result, smoothed


def _factors(columns: Floats, seen: Floats, alpha: float) -> Floats:
    """Return s per input channel, [in], each a power of two: exact in any binary format.

    `columns` and `seen` are the largest magnitudes of the weights and of the input, [in].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = alpha * np.log2(seen) - (1 - alpha) * np.log2(columns)
    exponent = np.where(np.isfinite(exponent), exponent, 0.0)  # a channel of zeros
    middle = np.median(exponent)  # only ratios between channels matter
    rounded = np.clip(np.rint(exponent - middle), -MAX_EXPONENT, MAX_EXPONENT)
    factors: Floats = np.exp2(rounded).astype(np.float32)
    return factors


def _absorb(checkpoint: Checkpoint, group: Group, factors: Floats, result: Adjustments) -> None:
    """Put 1 / factors into what comes before the group."""
    if not group.is_norm:
        module = group.absorber.removesuffix(".weight")
        result.rows[module] = (factors.astype(np.float64) ** -group.power).astype(np.float32)
        return
    ref = checkpoint[group.absorber]
    before = ref.map().astype(np.float32)
    with np.errstate(over="ignore"):
        after = (before / factors).astype(ref.numpy_dtype)
        if not np.array_equal(after.astype(np.float32) * factors, before):
            raise ConfigError(
                f"{group.absorber} is {ref.dtype} and can't take the smoothing factors exactly; "
                "give --no-fold."
            )
    result.tensors[group.absorber] = after.tobytes()
