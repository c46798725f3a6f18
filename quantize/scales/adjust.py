"""What a recipe needs beside the weights: static scales, smoothing factors, KV cache scales."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.model_config import LayerKind
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.engines.model.tensor_names import blocks
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.calibration import Calibration
from nemotrt.quantize.conversion.options import CalibrationOptions
from nemotrt.quantize.conversion.plan import Adjustments
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection
from nemotrt.quantize.scales.amax import common_amaxes
from nemotrt.quantize.scales.smooth import smooth

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


def adjust(
    checkpoint: Checkpoint,
    selection: Selection,
    recipe: Recipe,
    kv_cache: str = "none",
    calibration: Calibration | None = None,
    options: CalibrationOptions | None = None,
    progress: Callable[[int], None] = lambda num_bytes: None,
) -> Adjustments:
    """Return the adjustments for `recipe`; `progress` is told of bytes of weights read.

    Raises:
        ConfigError: a static scale is needed and there is no calibration to take it from.
    """
    how = options or CalibrationOptions()
    kv_scales = _kv_scales(checkpoint, kv_cache, calibration, how)
    if not recipe.precision.has_input_scale:
        shares = recipe.precision.weights.has_second_scale
        amaxes = common_amaxes(checkpoint, selection) if shares else {}
        return Adjustments(kv_scales=kv_scales, amaxes=amaxes)
    if calibration is None:
        raise ConfigError(
            f"recipe {recipe.name} has static scales: give --calibration DIR (a new folder is "
            "filled first), or use a recipe without: int8-wo, fp8-dynamic."
        )
    if recipe.precision.is_smoothed:
        adjustments, smoothed = smooth(
            checkpoint, selection, recipe, calibration, fold=how.fold, progress=progress
        )
    else:
        adjustments, smoothed = Adjustments(amaxes=common_amaxes(checkpoint, selection)), {}
    code_max = recipe.precision.inputs.format.largest_code
    scales = {}
    for weight in selection.weights:
        if weight in smoothed:  # the histogram is of the input before smoothing
            clip = float(smoothed[weight].max(initial=0.0))
        else:
            clip = calibration[weight].clip(how.method, how.percentile, code_max)
        scales[weight.removesuffix(".weight")] = max(clip / code_max, SMALLEST_SCALE)
    return replace(adjustments, input_scales=scales, kv_scales=kv_scales)


def _kv_scales(
    checkpoint: Checkpoint, kv_cache: str, calibration: Calibration | None, how: CalibrationOptions
) -> dict[str, float]:
    """Return tensor name -> scale of the KV cache, for the attention blocks.

    Without a calibration an FP8 cache has scale 1, which is ModelOpt's default (`fp8_cast`).
    """
    if kv_cache == "none":
        return {}
    if kv_cache == "int8" and calibration is None:
        raise ConfigError("--kv-cache int8 needs --calibration DIR; or use --kv-cache fp8 or none.")
    code_max = NumberFormat(kv_cache).largest_code
    scales = {}
    for block in blocks(checkpoint.config):
        if block.kind is not LayerKind.ATTENTION:
            continue
        for leaf in ("k_proj.k_scale", "v_proj.v_scale"):
            name = block.name(leaf)
            if calibration is None:
                scales[name] = 1.0
            else:
                clip = calibration[name].clip(how.method, how.percentile, code_max)
                scales[name] = max(clip / code_max, SMALLEST_SCALE)
    return scales
