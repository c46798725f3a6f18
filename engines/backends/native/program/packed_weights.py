"""A checkpoint's tensors, converted to what the program names and appended to the weights file."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.program.packing import WeightsFile, int4_panels
from nemotrt.engines.backends.native.program.program import (
    CELL,
    DEPTH_BLOCK,
    BufferFormat,
    TensorKind,
    WeightTensor,
    num_blocks,
    round_up,
)
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.model.tensor_names import model_names
from nemotrt.errors import ArtefactError

LARGEST_EXPONENT = 15  # of a half float below 2^15, as frexp counts
FLOAT8_NAN = 0x7F  # E4M3's only code without a value, of either sign
FLOAT_PANELS = {
    NumberFormat.FP32: TensorKind.PANELS_FLOAT,
    NumberFormat.BF16: TensorKind.PANELS_BF16,
}


class PackedWeights:
    """Gives the index of each tensor, packing it when it is asked for, some rows at a time."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, precision: Precision) -> None:
        """Start an empty weights file in `folder`."""
        self.checkpoint = checkpoint
        self.precision = precision
        self._float = precision.floats
        self._file = WeightsFile(folder)

    @property
    def specs(self) -> tuple[WeightTensor, ...]:
        """The tensors so far."""
        return tuple(self._file.tensors)

    def values(self, name: str, values: npt.NDArray[np.float32]) -> int:
        """Return the tensor of these float32 values; a name stands for one tensor."""
        found = self._file.find(name, TensorKind.VALUES)
        return self._file.add_values(name, values) if found is None else found

    def vector(self, name: str) -> int:
        """Return the tensor of a norm's weight or a bias, float32."""
        return self.values(name, self.checkpoint.floats(name).reshape(-1))

    def table(self, name: str) -> int:
        """Return the embedding table; it keeps bfloat16 unless the engine is float32."""
        kind = TensorKind.VALUES if self._float is NumberFormat.FP32 else TensorKind.TABLE_BF16

        def rows(part: slice) -> npt.NDArray[Any]:
            return self.checkpoint.floats(name, part).astype(self._float.numpy)

        return self._file.add_rows(name, kind, self.checkpoint[name].shape, rows)

    def linear(self, name: str) -> tuple[int, int | None, BufferFormat]:
        """Return (weight, scale, the operand that it reads) of a linear."""
        linear = LinearWeight(self.checkpoint, name)
        shape = self.checkpoint[name].shape
        if self._is_int4(linear):
            return self._int4(linear, shape)
        if self._is_int8(linear):
            num_scales = 1 if linear.has_codes else num_blocks(shape[1])
            scale = np.zeros((num_scales, round_up(shape[0])), np.float32)

            def codes(part: slice) -> npt.NDArray[Any]:
                found, scale[:, part] = linear.int8_blocks(part, DEPTH_BLOCK)
                return found

            weight = self._file.add_rows(name, TensorKind.PANELS_INT8, shape, codes)
            return weight, self.values(f"{name}_scale", scale), BufferFormat.OPERAND_INT16
        if self._is_float8(linear):
            row_scale = np.zeros(round_up(shape[0]), np.float32)
            row_scale[: shape[0]] = linear.scale()
            weight = self._file.add_rows(
                name, TensorKind.PANELS_FLOAT8, shape, lambda part: self._float8(name, part)
            )
            return weight, self.values(f"{name}_scale", row_scale), BufferFormat.OPERAND_FLOAT

        def floats(part: slice) -> npt.NDArray[Any]:
            return linear.floats(part).astype(self._float.numpy)

        weight = self._file.add_rows(name, FLOAT_PANELS[self._float], shape, floats)
        return weight, None, BufferFormat.OPERAND_FLOAT

    def _is_int4(self, linear: LinearWeight) -> bool:
        """Whether a linear becomes int4.

        All do but the head, unless the checkpoint is quantized: then those that it stores so.
        """
        if self.precision.weights.format is not NumberFormat.INT4:
            return False
        if self.checkpoint.quant.precision is None:
            return linear.name != model_names(self.checkpoint.config).lm_head
        return linear.has_int4

    def _int4(
        self, linear: LinearWeight, shape: tuple[int, ...]
    ) -> tuple[int, int | None, BufferFormat]:
        """Return (weight, factor of each row, operand) of a linear packed as int4.

        Scales are half floats times a power of two for each row, the largest from 2^14 to 2^15: so
        they are what bfloat16 or float16 stored, unless they are 2^-30 of the row's largest.
        """
        factors = np.zeros(round_up(shape[0]), np.float32)

        def cells(part: slice) -> npt.NDArray[Any]:
            codes, scales = linear.int4_groups(part, CELL)
            exponent = np.frexp(scales.max(axis=1))[1] - LARGEST_EXPONENT
            factors[part] = np.ldexp(np.float32(1), exponent)
            return int4_panels(codes, (scales / factors[part, None]).astype(np.float16))

        weight = self._file.add_rows(linear.name, TensorKind.PANELS_INT4, shape, cells)
        factor = self.values(f"{linear.name}_scale", factors)
        return weight, factor, BufferFormat.OPERAND_INT8

    def _is_int8(self, linear: LinearWeight) -> bool:
        """Whether a linear becomes int8.

        All do, with the head, unless the checkpoint is quantized: then those that it stores as
        floats stay so, and those whose input it scales too. Beside int4 nothing stays a float.
        """
        if self.precision.weights.format is NumberFormat.INT4:
            return True
        if self.precision.weights.format is not NumberFormat.INT8:
            return False
        if self.checkpoint.quant.precision is None:
            return True
        return linear.is_quantized and not linear.has_input_factor

    def _is_float8(self, linear: LinearWeight) -> bool:
        """Whether a linear keeps its float8 codes, which the kernels decode."""
        is_wanted = self.precision.weights.format is NumberFormat.FP8
        is_stored = self.checkpoint[linear.name].dtype == NumberFormat.FP8.safetensors
        return is_wanted and is_stored and not linear.has_input_factor

    def _float8(self, name: str, part: slice) -> npt.NDArray[np.uint8]:
        """Return rows of float8 codes."""
        ref = self.checkpoint[name]
        codes: npt.NDArray[np.uint8] = ref.map()[part].view(np.uint8)
        if ((codes & FLOAT8_NAN) == FLOAT8_NAN).any():
            raise ArtefactError(f"{ref.path}: tensor {name} holds NaN.")
        return codes
