"""How each format spells a quantized linear: leaf names, types and shapes.

Sources: NVIDIA ModelOpt 0.47 exports; compressed-tensors' naive, int and pack-quantized layouts;
the loaders of TensorRT-LLM and vLLM (docs/reference/formats.md has the table).
"""

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.packed import WORD_BITS, num_words
from nemotrt.engines.model.numerics import GROUP_SIZES, Numbers, Precision
from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.layout import (
    Codes,
    Entry,
    Linear,
    Scales,
    SecondScale,
    literal,
)
from nemotrt.quantize.recipes.recipe import Recipe

# compressed-tensors 0.20's names in nvfp4-pack-quantized.
PACKED_FP4 = ("weight_packed", "weight_global_scale")


class CheckpointFormat(StrEnum):
    """The layouts that can be written, and where they differ."""

    MODELOPT = "modelopt"
    COMPRESSED_TENSORS = "compressed-tensors"

    @property
    def one_scale(self) -> tuple[int, ...]:
        """The shape of a scale that serves all."""
        return () if self is CheckpointFormat.MODELOPT else (1,)

    def scale_shape(self, numbers: Numbers, num_rows: int, num_groups: int = 1) -> tuple[int, ...]:
        """Return the shape of a weight's scales."""
        if numbers.is_per_tensor:
            return self.one_scale
        is_vector = self is CheckpointFormat.MODELOPT and not numbers.is_grouped
        return (num_rows,) if is_vector else (num_rows, num_groups)

    def packs(self, precision: Precision) -> bool:
        """Whether codes are several to an int32."""
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
    if numbers.is_grouped:
        check_groups(linear, layout)
    if numbers.has_second_scale:
        yield from _nvfp4(linear, layout)
        return
    if layout.packs(recipe.precision):
        linear = replace(linear, is_offset_binary=True)
        yield from _packed(linear)
    elif numbers.is_grouped:
        linear = replace(linear, pairs_rows=True)
        rows, columns = linear.source.shape
        yield Entry(linear.name, "U8", (rows // 2, columns), Codes(linear))
    else:
        yield Entry(linear.name, numbers.format.safetensors, linear.source.shape, Codes(linear))
    shape = layout.scale_shape(numbers, linear.num_rows, linear.num_groups)
    yield Entry(f"{module}.weight_scale", numbers.scale_format.safetensors, shape, Scales(linear))
    if input_scale is not None:
        yield literal(f"{module}.input_scale", "F32", np.full(layout.one_scale, input_scale))
    if pre_quant_scale is None and numbers.is_grouped and layout is CheckpointFormat.MODELOPT:
        pre_quant_scale = np.ones(linear.num_columns, np.float32)  # TensorRT-LLM looks for it
    if pre_quant_scale is not None:
        yield literal(f"{module}.pre_quant_scale", "BF16", pre_quant_scale)


def check_unfolded(layout: CheckpointFormat) -> None:
    """Raise ConfigError if `layout` can't hold SmoothQuant's factors beside the weights."""
    if layout is not CheckpointFormat.MODELOPT:
        raise ConfigError(f"{layout} has no place for pre_quant_scale; leave --no-fold away.")


def check_groups(linear: Linear, layout: CheckpointFormat) -> None:
    """Raise ConfigError if the groups of int4 don't fit the linear or the layout."""
    is_paired = layout is CheckpointFormat.MODELOPT and not linear.numbers.has_second_scale
    if is_paired and linear.num_rows % 2:
        raise ConfigError(
            f"{linear.name} has {linear.num_rows} output channels; modelopt's int4 takes two at a "
            "time. Use --format compressed-tensors."
        )
    if linear.num_columns % linear.group_size and linear.numbers.has_second_scale:
        raise ConfigError(
            f"{linear.name} has {linear.num_columns} input channels; NVFP4 has groups of "
            f"{linear.group_size}. Use --recipe int4-wo."
        )
    if linear.num_columns % linear.group_size:
        fits = [str(size) for size in GROUP_SIZES if linear.num_columns % size == 0]
        raise ConfigError(
            f"{linear.name} has {linear.num_columns} input channels, which groups of "
            f"{linear.group_size} do not divide; those that do: {', '.join(fits) or 'none'}."
        )


def _nvfp4(linear: Linear, layout: CheckpointFormat) -> Iterator[Entry]:
    """Yield two codes to a byte, their scales, and the scale of those."""
    is_modelopt = layout is CheckpointFormat.MODELOPT
    codes, second = ("weight", "weight_scale_2") if is_modelopt else PACKED_FP4
    rows, columns = linear.source.shape
    module, shape = linear.module, (rows, linear.num_groups)
    yield Entry(f"{module}.{codes}", "U8", (rows, columns // 2), Codes(linear))
    scales = linear.numbers.scale_format.safetensors
    yield Entry(f"{module}.weight_scale", scales, shape, Scales(linear))
    content = SecondScale(linear, is_inverse=not is_modelopt)
    yield Entry(f"{module}.{second}", "F32", layout.one_scale, content)


def _packed(linear: Linear) -> Iterator[Entry]:
    """Yield weight_packed: codes plus half their range in int32, little end first."""
    rows, columns = linear.source.shape
    bits = linear.numbers.format.num_bits
    if columns * bits % WORD_BITS:
        raise ConfigError(
            f"{linear.name} has {columns} input channels; compressed-tensors packs four at a time. "
            "Use --format modelopt."
        )
    words = num_words(columns, bits)
    yield Entry(f"{linear.module}.weight_packed", "I32", (rows, words), Codes(linear))
    yield literal(f"{linear.module}.weight_shape", "I64", [rows, columns])
