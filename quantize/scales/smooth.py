"""SmoothQuant, folded: factors that move outliers from activations into weights for nothing.

Source: SmoothQuant (arXiv 2211.10438), s = amax(x)^alpha / amax(w)^(1 - alpha) per input channel.
Dividing a linear's input by s is free where what comes before can absorb it:

    norm -> in_proj, up_proj, q, k, v     the norm's weight; s is a power of two, so this is exact
    gated norm -> out_proj                the same, as the weight comes after the normalization
    up_proj, relu^2 -> down_proj          relu(x)^2 / s = relu(x / sqrt(s))^2: up_proj's row scales
    up_proj * silu(gate) -> down_proj     up_proj's row scales
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.model_config import Activation, LayerKind
from nemotrt.engines.model.tensor_names import Block, blocks
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.calibration import Calibration
from nemotrt.quantize.conversion.plan import Adjustments
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection
from nemotrt.quantize.scales.column_amax import column_amax

Floats = npt.NDArray[np.float32]
MAX_EXPONENT = 12  # factors stay within 2^-12 .. 2^12, far from bfloat16's range


@dataclass(frozen=True, slots=True)
class Group:
    """Linears that share an input, and the tensor that can absorb the input's factors."""

    weights: tuple[str, ...]
    absorber: str
    is_norm: bool  # else a linear's rows
    power: float = 1.0  # the absorber takes factor^-power


def groups(checkpoint: Checkpoint, selection: Selection) -> list[Group]:
    """Return the foldable groups all of whose linears are quantized."""
    chosen, result = set(selection.weights), []
    for block in blocks(checkpoint.config):
        for group in block_groups(block, checkpoint.config.activation):
            absorbs = group.is_norm or group.absorber in chosen
            if absorbs and chosen.issuperset(group.weights):
                result.append(group)
    return result


def block_groups(block: Block, activation: Activation) -> list[Group]:
    """Return the groups of one block, norms' groups first."""
    name = block.name
    if block.kind is LayerKind.MAMBA:
        return [
            Group((name("in_proj.weight"),), block.norm, is_norm=True),
            Group((name("out_proj.weight"),), name("norm.weight"), is_norm=True),
        ]
    if block.kind is LayerKind.ATTENTION:
        qkv = tuple(name(f"{letter}_proj.weight") for letter in "qkv")
        return [Group(qkv, block.norm, is_norm=True)]
    up, down = name("up_proj.weight"), name("down_proj.weight")
    if activation is Activation.RELU2:
        first: tuple[str, ...] = (up,)
        power = 0.5
    else:
        first, power = (name("gate_proj.weight"), up), 1.0
    return [
        Group(first, block.norm, is_norm=True),
        Group((down,), up, is_norm=False, power=power),
    ]


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
    for group in groups(checkpoint, selection):
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
