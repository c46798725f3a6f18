"""A linear of the checkpoint as one of TensorRT-LLM's: its rank's part, its scales, its names.

Source: TensorRT-LLM 1.2, quantization/layers.py: FP8Linear, Int8SmoothQuantLinear,
WeightOnlyQuantColumnLinear and their row-parallel kin.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt_llm_1_2.mixed_gemm import mixed_gemm_layout
from nemotrt.engines.backends.tensorrt_llm_1_2.rank_tensor import RankTensor
from nemotrt.engines.backends.tensorrt_llm_1_2.tensor_parallel import take
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ArtefactError, ConfigError

BF16, FP8 = NumberFormat.BF16.numpy, NumberFormat.FP8.numpy
FP8_MAX = np.float32(NumberFormat.FP8.largest_code)


@dataclass(frozen=True, slots=True)
class Part:
    """What a rank takes of one weight [out, in] of the checkpoint."""

    name: str
    rows: tuple[slice, ...]
    columns: tuple[slice, ...]

    def of(self, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the part of a weight."""
        return take(take(weight, self.rows, 0), self.columns, 1)

    @property
    def module(self) -> str:
        """The name without its leaf."""
        return self.name.removesuffix(".weight")


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear of TensorRT-LLM's: parts of the checkpoint's weights, one below the other."""

    name: str
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Its weight's shape, [out, in]."""
        rows = sum(_length(part.rows) for part in self.parts)
        return rows, _length(self.parts[0].columns)

    def is_quantized(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint has codes for it; a mixture of parts is an error."""
        kinds = {checkpoint[part.name].is_float for part in self.parts}
        if len(kinds) > 1:
            names = ", ".join(part.name for part in self.parts)
            raise ConfigError(f"{names} are one linear in TensorRT-LLM: quantize all or none.")
        return not kinds.pop()


def linear_tensors(
    checkpoint: Checkpoint, linear: Linear, compute_capability: str
) -> Iterator[RankTensor]:
    """Yield the tensors of one linear in a rank's file.

    Raises:
        ConfigError: its parts are quantized in ways that can't be joined.
        ArtefactError: a scale is missing.
    """
    if not linear.is_quantized(checkpoint):
        load = partial(_floats, checkpoint, linear)
        yield RankTensor(f"{linear.name}.weight", "BF16", linear.shape, load)
    elif checkpoint.quant.precision is Precision.FP8:
        yield from _fp8(checkpoint, linear)
    elif checkpoint.quant.precision is Precision.INT8_SQ:
        yield from _int8_smoothquant(checkpoint, linear)
    else:
        yield from _int8_weight_only(checkpoint, linear, compute_capability)


def _length(slices: Sequence[slice]) -> int:
    return sum(part.stop - part.start for part in slices)


def _joined(checkpoint: Checkpoint, linear: Linear) -> npt.NDArray[Any]:
    """Return the rank's weight as stored, [out, in]."""
    parts = [part.of(checkpoint[part.name].map()) for part in linear.parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _floats(checkpoint: Checkpoint, linear: Linear) -> npt.NDArray[Any]:
    return _joined(checkpoint, linear).astype(BF16, copy=False)


def _scalars(checkpoint: Checkpoint, linear: Linear, leaf: str) -> list[np.float32]:
    """Return a per-tensor scale of each part."""
    scales = []
    for part in linear.parts:
        values = checkpoint.floats(f"{part.module}.{leaf}").reshape(-1)
        if values.size != 1 or not values[0] > 0:
            raise ArtefactError(f"{part.module}.{leaf} must be one positive value.")
        scales.append(values[0])
    return scales


def constant(name: str, value: np.float32) -> RankTensor:
    """Return a tensor of one number, known already."""
    return RankTensor(name, "F32", (1,), lambda: np.array([value], np.float32))


def _fp8(checkpoint: Checkpoint, linear: Linear) -> Iterator[RankTensor]:
    """Yield codes and scales; parts of different scales are coded again in the largest."""
    scales = _scalars(checkpoint, linear, "weight_scale")
    largest = max(scales)

    def load() -> npt.NDArray[Any]:
        if len(set(scales)) == 1:
            return _joined(checkpoint, linear)
        parts = []
        for part, scale in zip(linear.parts, scales, strict=True):
            values = part.of(checkpoint[part.name].map()).astype(np.float32) * scale / largest
            parts.append(np.clip(values, -FP8_MAX, FP8_MAX).astype(FP8))
        return np.concatenate(parts)

    yield RankTensor(f"{linear.name}.weight", "F8_E4M3", linear.shape, load)
    yield constant(f"{linear.name}.weights_scaling_factor", largest)
    inputs = max(_scalars(checkpoint, linear, "input_scale"))
    yield constant(f"{linear.name}.activation_scaling_factor", inputs)


def _channel_scales(checkpoint: Checkpoint, linear: Linear) -> npt.NDArray[np.float32]:
    """Return the rank's scales, one per row."""
    parts = [
        take(checkpoint.floats(f"{part.module}.weight_scale").reshape(-1), part.rows, 0)
        for part in linear.parts
    ]
    return np.concatenate(parts)


def _int8_smoothquant(checkpoint: Checkpoint, linear: Linear) -> Iterator[RankTensor]:
    """Yield codes [out, in], a scale per row, one of the input, and SmoothQuant's factors."""
    num_rows, num_columns = linear.shape
    codes = partial(_joined, checkpoint, linear)
    yield RankTensor(f"{linear.name}.weight", "I8", linear.shape, codes)
    scales = partial(_channel_scales, checkpoint, linear)
    yield RankTensor(f"{linear.name}.weights_scaling_factor", "F32", (num_rows,), scales)
    inputs = max(_scalars(checkpoint, linear, "input_scale"))
    yield constant(f"{linear.name}.activation_scaling_factor", inputs)
    factors = _input_factors(checkpoint, linear)
    yield RankTensor(
        f"{linear.name}.prequant_scaling_factor", "BF16", (num_columns,), lambda: factors
    )


def _input_factors(checkpoint: Checkpoint, linear: Linear) -> npt.NDArray[Any]:
    """Return what the input is multiplied by, [in]: ones where SmoothQuant was folded."""
    found = []
    for part in linear.parts:
        name = f"{part.module}.pre_quant_scale"
        width = checkpoint[part.name].shape[1]
        values = checkpoint.floats(name) if name in checkpoint else np.ones(width, np.float32)
        found.append(take(values, part.columns, 0))
    if any(not np.array_equal(found[0], other) for other in found[1:]):
        raise ConfigError(
            f"{linear.name}: its parts' pre_quant_scale differ, and TensorRT-LLM has one; quantize "
            "without --no-fold."
        )
    return found[0].astype(BF16)


def _int8_weight_only(
    checkpoint: Checkpoint, linear: Linear, compute_capability: str
) -> Iterator[RankTensor]:
    """Yield codes in the kernel's order, declared [in, out], and a scale per row."""

    def load() -> npt.NDArray[Any]:
        return mixed_gemm_layout(_joined(checkpoint, linear), compute_capability)

    yield RankTensor(f"{linear.name}.weight", "I8", linear.shape[::-1], load)

    def scales() -> npt.NDArray[Any]:
        return _channel_scales(checkpoint, linear).astype(BF16)

    yield RankTensor(f"{linear.name}.per_channel_scale", "BF16", (linear.shape[0],), scales)
