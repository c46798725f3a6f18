"""How each format spells a quantized linear: leaf names, types and shapes.

Sources: NVIDIA ModelOpt 0.47 exports; compressed-tensors' naive, int and pack-quantized layouts;
the loaders of TensorRT-LLM and vLLM (docs/reference/formats.md has the table).
"""

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from nemotrt.engines.model.numerics import Numbers, Precision
from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.layout import Codes, Entry, Linear, Scales, literal
from nemotrt.quantize.recipes.recipe import Recipe


class CheckpointFormat(StrEnum):
    """The layouts that can be written, and where they differ."""

    MODELOPT = "modelopt"
    COMPRESSED_TENSORS = "compressed-tensors"

    @property
    def one_scale(self) -> tuple[int, ...]:
        """The shape of a scale that serves all."""
        return () if self is CheckpointFormat.MODELOPT else (1,)

    def scale_shape(self, numbers: Numbers, num_rows: int) -> tuple[int, ...]:
        """Return the shape of a weight's scales."""
        if numbers.is_per_tensor:
            return self.one_scale
        return (num_rows,) if self is CheckpointFormat.MODELOPT else (num_rows, 1)

    def packs(self, precision: Precision) -> bool:
        """Whether codes are four to an int32."""
        return self is CheckpointFormat.COMPRESSED_TENSORS and precision.is_weight_only

    def cache_scale(self, leaf: str) -> str:
        """Return where an attention block has its `k_scale` or `v_scale`."""
        return f"{leaf[0]}_proj.{leaf}" if self is CheckpointFormat.MODELOPT else leaf


def linear_entries(
    linear: Linear,
    recipe: Recipe,
    layout: CheckpointFormat,
    input_scale: float | None = None,
    pre_quant_scale: npt.NDArray[np.float32] | None = None,
) -> Iterator[Entry]:
    """Yield the tensors that replace the weight [out, in] of `linear`.

    Raises:
        ConfigError: the format can't hold this linear.
    """
    if pre_quant_scale is not None:
        check_unfolded(layout)
    module, numbers = linear.module, linear.numbers
    if layout.packs(recipe.precision):
        linear = replace(linear, is_offset_binary=True)
        yield from _packed(linear)
    else:
        yield Entry(linear.name, numbers.format.safetensors, linear.source.shape, Codes(linear))
    shape = layout.scale_shape(numbers, linear.num_rows)
    yield Entry(f"{module}.weight_scale", "F32", shape, Scales(linear))
    if input_scale is not None:
        yield literal(f"{module}.input_scale", "F32", np.full(layout.one_scale, input_scale))
    if pre_quant_scale is not None:
        yield literal(f"{module}.pre_quant_scale", "BF16", pre_quant_scale)


def check_unfolded(layout: CheckpointFormat) -> None:
    """Raise ConfigError if `layout` can't hold SmoothQuant's factors beside the weights."""
    if layout is not CheckpointFormat.MODELOPT:
        raise ConfigError(f"{layout} has no place for pre_quant_scale; leave --no-fold away.")


def _packed(linear: Linear) -> Iterator[Entry]:
    """Yield weight_packed: four codes + 128 in an int32, little end first."""
    rows, columns = linear.source.shape
    if columns % 4:
        raise ConfigError(
            f"{linear.name} has {columns} input channels; compressed-tensors packs four at a time. "
            "Use --format modelopt."
        )
    yield Entry(f"{linear.module}.weight_packed", "I32", (rows, columns // 4), Codes(linear))
    yield literal(f"{linear.module}.weight_shape", "I64", [rows, columns])
