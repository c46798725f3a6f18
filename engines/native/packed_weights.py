"""A checkpoint's tensors, converted to what the program names and appended to the weights file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16

from nemotrt.engines.checkpoint import Checkpoint
from nemotrt.engines.linear_weight import LinearWeight
from nemotrt.engines.native.packing import WeightsFile
from nemotrt.engines.native.program import BufferFormat, TensorKind, TensorSpec, round_up
from nemotrt.engines.precision import Precision
from nemotrt.engines.quant_config import QuantAlgo


class PackedWeights:
    """Gives the index of each tensor, packing it when it is asked for."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, precision: Precision) -> None:
        """Start an empty weights file in `folder`."""
        self.checkpoint = checkpoint
        self.precision = precision
        self._float = np.float32 if precision is Precision.FP32 else bfloat16
        self._file = WeightsFile(folder)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
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
        return self._file.add_values(name, self.checkpoint.floats(name).astype(self._float))

    def linear(self, name: str) -> tuple[int, int | None, BufferFormat]:
        """Return (weight, scale, the operand that it reads) of a linear."""
        linear = LinearWeight(self.checkpoint, name)
        if self._is_int8(linear):
            codes, scale = linear.int8()
            padded = np.zeros(round_up(scale.size), np.float32)
            padded[: scale.size] = scale
            weight = self._file.add_panels(name, codes)
            return weight, self.values(f"{name}_scale", padded), BufferFormat.OPERAND_INT16
        weight = self._file.add_panels(name, linear.floats().astype(self._float))
        return weight, None, BufferFormat.OPERAND_FLOAT

    def _is_int8(self, linear: LinearWeight) -> bool:
        """Whether a linear becomes int8.

        All do, with the head, unless the checkpoint is quantized: then those that it stores as
        floats stay so, and those whose input it scales too.
        """
        if self.precision is not Precision.INT8_WO:
            return False
        if self.checkpoint.quant.algo is QuantAlgo.NONE:
            return True
        smooth = linear.name.removesuffix("weight") + "pre_quant_scale"
        return linear.is_quantized and smooth not in self.checkpoint
