"""How each format spells a quantized linear: leaf names, types and shapes.

Sources: NVIDIA ModelOpt 0.47 exports; compressed-tensors' naive, int and pack-quantized layouts;
the loaders of TensorRT-LLM and vLLM (docs/quantization.md has the table).
"""

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.layout import Codes, Entry, Linear, Scales, literal
from nemotrt.quantize.recipes.recipe import Recipe


class Format(StrEnum):
    """The layouts that can be written."""

    MODELOPT = "modelopt"
    COMPRESSED_TENSORS = "compressed-tensors"


def linear_entries(
    linear: Linear,
    recipe: Recipe,
    layout: Format,
    input_scale: float | None = None,
    pre_quant_scale: npt.NDArray[np.float32] | None = None,
) -> Iterator[Entry]:
    """Yield the tensors that replace the weight of `linear`.

    Raises:
        ConfigError: the format can't hold this linear.
    """
    if layout is Format.MODELOPT:
        yield from _modelopt(linear, input_scale, pre_quant_scale)
        return
    if pre_quant_scale is not None:
        check_unfolded(layout)
    if recipe.precision.is_weight_only:
        yield from _packed(linear)
    else:
        yield from _compressed_tensors(linear, input_scale)


def check_unfolded(layout: Format) -> None:
    """Raise ConfigError if `layout` can't hold SmoothQuant's factors beside the weights."""
    if layout is not Format.MODELOPT:
        raise ConfigError(f"{layout} has no place for pre_quant_scale; leave --no-fold away.")


def _modelopt(
    linear: Linear, input_scale: float | None, pre_quant_scale: npt.NDArray[np.float32] | None
) -> Iterator[Entry]:
    """Yield weight [out, in], weight_scale [out] or scalar, and what a calibration adds."""
    shape = () if linear.numbers.is_per_tensor else (linear.num_rows,)
    yield Entry(linear.name, linear.numbers.format.safetensors, linear.source.shape, Codes(linear))
    yield Entry(f"{linear.module}.weight_scale", "F32", shape, Scales(linear))
    if input_scale is not None:
        yield literal(f"{linear.module}.input_scale", "F32", np.float32(input_scale))
    if pre_quant_scale is not None:
        yield literal(f"{linear.module}.pre_quant_scale", "BF16", pre_quant_scale)


def _compressed_tensors(linear: Linear, input_scale: float | None) -> Iterator[Entry]:
    """Yield weight [out, in], weight_scale [out, 1] or [1], input_scale [1]."""
    shape = (1,) if linear.numbers.is_per_tensor else (linear.num_rows, 1)
    yield Entry(linear.name, linear.numbers.format.safetensors, linear.source.shape, Codes(linear))
    yield Entry(f"{linear.module}.weight_scale", "F32", shape, Scales(linear))
    if input_scale is not None:
        yield literal(f"{linear.module}.input_scale", "F32", [input_scale])


def _packed(linear: Linear) -> Iterator[Entry]:
    """Yield weight_packed: four codes + 128 in an int32, little end first."""
    rows, columns = linear.source.shape
    if columns % 4:
        raise ConfigError(
            f"{linear.name} has {columns} input channels; compressed-tensors packs four at a time. "
            "Use --format modelopt."
        )
    packed = replace(linear, is_offset_binary=True)
    yield Entry(f"{linear.module}.weight_packed", "I32", (rows, columns // 4), Codes(packed))
    yield Entry(f"{linear.module}.weight_scale", "F32", (rows, 1), Scales(packed))
    yield literal(f"{linear.module}.weight_shape", "I64", [rows, columns])
