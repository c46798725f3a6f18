"""A checkpoint's tensors, converted to what the program names and appended to the weights file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """How a linear is stored: its kind, its rows, a scale that they fill, what it reads."""

    kind: TensorKind
    shape: tuple[int, ...]
    rows_of: Callable[[slice], npt.NDArray[Any]]
    scale: npt.NDArray[np.float32] | None = None
    operand: BufferFormat = BufferFormat.OPERAND_FLOAT

    @property
    def layout(self) -> tuple[TensorKind, int]:
        """What linears in one tensor have in common: their kind, and how many scales a row has."""
        return self.kind, 0 if self.scale is None else self.scale.size


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

    def linear(self, name: str, *, is_exact: bool = False) -> tuple[int, int | None, BufferFormat]:
        """Return (weight, scale, operand that it reads) of a linear; `is_exact` keeps floats."""
        linear = LinearWeight(self.checkpoint, name)
        packing = self._floats(linear, NumberFormat.FP32) if is_exact else self._packing(linear)
        return (*self._add(name, [packing]), packing.operand)

    def experts(self, names: Sequence[str]) -> tuple[int, int | None, int]:
        """Return (weight, scale, rows of each) of one linear of each expert, one below the other.

        They are stored alike: as floats, if a checkpoint stores only some of them as codes.
        """
        linears = [LinearWeight(self.checkpoint, name) for name in names]
        packings = [self._packing(linear) for linear in linears]
        if len({packing.layout for packing in packings}) > 1:
            packings = [self._floats(linear, self._float) for linear in linears]
        weight, scale = self._add(f"{names[0]} to {names[-1]}", packings)
        return weight, scale, round_up(packings[0].shape[0])

    def _add(self, name: str, packings: Sequence[Packing]) -> tuple[int, int | None]:
        """Append matrices as one tensor, and their scales; return both."""
        first = packings[0]
        rows_of = [packing.rows_of for packing in packings]
        weight = self._file.add_stack(name, first.kind, first.shape, rows_of)
        if first.scale is None:
            return weight, None
        scales = [packing.scale for packing in packings if packing.scale is not None]
        return weight, self.values(f"{name}_scale", np.concatenate(scales, axis=-1))

    def _packing(self, linear: LinearWeight) -> Packing:
        """Return how a linear is stored."""
        shape = self.checkpoint[linear.name].shape
        if self._is_int4(linear):
            return self._int4(linear, shape)
        if self._is_int8(linear):
            num_scales = 1 if linear.has_codes else num_blocks(shape[1])
            scale = np.zeros((num_scales, round_up(shape[0])), np.float32)

            def codes(part: slice) -> npt.NDArray[Any]:
                found, scale[:, part] = linear.int8_blocks(part, DEPTH_BLOCK)
                return found

            return Packing(TensorKind.PANELS_INT8, shape, codes, scale, BufferFormat.OPERAND_INT16)
        if self._is_float8(linear):
            row_scale = np.zeros(round_up(shape[0]), np.float32)
            row_scale[: shape[0]] = linear.scale()
            kind = TensorKind.PANELS_FLOAT8
            return Packing(kind, shape, lambda part: self._float8(linear.name, part), row_scale)
        return self._floats(linear, self._float)

    def _floats(self, linear: LinearWeight, number: NumberFormat) -> Packing:
        """Return the packing of a linear that is stored as floats."""

        def floats(part: slice) -> npt.NDArray[Any]:
            return linear.floats(part).astype(number.numpy)

        return Packing(FLOAT_PANELS[number], self.checkpoint[linear.name].shape, floats)

    def _is_int4(self, linear: LinearWeight) -> bool:
        """Whether a linear becomes int4.

        All do but the head, unless the checkpoint is quantized: then those that it stores so.
        """
        if self.precision.weights.format is not NumberFormat.INT4:
            return False
        if self.checkpoint.quant.precision is None:
            return linear.name != model_names(self.checkpoint.config).lm_head
        return linear.has_int4

    def _int4(self, linear: LinearWeight, shape: tuple[int, ...]) -> Packing:
        """Return the packing of a linear as int4, with a factor of each row.

        Scales are half floats times a power of two for each row, the largest from 2^14 to 2^15: so
        they are what bfloat16 or float16 stored, unless they are 2^-30 of the row's largest.
        """
        factors = np.zeros(round_up(shape[0]), np.float32)

        def cells(part: slice) -> npt.NDArray[Any]:
            codes, scales = linear.int4_groups(part, CELL)
            exponent = np.frexp(scales.max(axis=1))[1] - LARGEST_EXPONENT
            factors[part] = np.ldexp(np.float32(1), exponent)
            return int4_panels(codes, (scales / factors[part, None]).astype(np.float16))

        return Packing(TensorKind.PANELS_INT4, shape, cells, factors, BufferFormat.OPERAND_INT8)

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
