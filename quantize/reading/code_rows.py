"""A quantized linear's weight read back a few rows at a time: codes, and what the scales mean."""

from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import SAFETENSORS, NumberFormat
from nemotrt.quantize.conversion.convert import SMALLEST_AMAX

Floats = npt.NDArray[np.float32]
_BYTES = np.arange(256, dtype=np.uint8)
VALUES: dict[str, Floats] = {  # of each byte that a code can be
    "F8_E4M3": _BYTES.view(ml_dtypes.float8_e4m3fn).astype(np.float32),
    "I8": _BYTES.view(np.int8).astype(np.float32),
    "I32": _BYTES.astype(np.float32) - 128,  # four offset binary codes
}


@dataclass(frozen=True, slots=True)
class CodeRows:
    """Codes [out, in] and their weight scale, one a row or one in all."""

    codes: TensorRef
    scale: TensorRef

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape, [out, in]."""
        rows, columns = self.codes.shape
        return (rows, columns * self.codes.numpy_dtype.itemsize)

    @property
    def code(self) -> NumberFormat:
        """The format of a code; four of int8 may be in an int32."""
        return SAFETENSORS.get(self.codes.dtype, NumberFormat.INT8)

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale serves all rows."""
        return self.scale.num_bytes == self.scale.numpy_dtype.itemsize

    def scales(self) -> Floats:
        """Return the scale of each row, [out]."""
        values = self.scale.map().astype(np.float32).reshape(-1)
        return np.broadcast_to(values, (self.codes.shape[0],))

    def read(self, rows: slice) -> Floats:
        """Return the codes of `rows` as float32 [rows, in]; NaN codes are NaN."""
        raw = np.asarray(self.codes.map()[rows]).view(np.uint8)
        return VALUES[self.codes.dtype][raw]

    def scale_of(self, amax: Floats, dtype: str) -> Floats:
        """Return the scale that the format gives weights of `dtype` with the largest `amax`."""
        smallest = SMALLEST_AMAX.get(dtype, SMALLEST_AMAX["F32"])
        clamped = np.where(amax > 0, np.maximum(amax, smallest), np.float32(0))
        scale: Floats = (clamped / np.float32(self.code.largest_code)).astype(np.float32)
        return scale


def code_rows(tensors: Mapping[str, TensorRef], module: str) -> CodeRows | None:
    """Return where the codes and scales of `module` are, or None if it is not quantized.

    A scale of another size than one or one a row gives None too: nothing can be read then.
    """
    for leaf in ("weight_packed", "weight"):
        ref = tensors.get(f"{module}.{leaf}")
        scale = tensors.get(f"{module}.weight_scale")
        if ref is None or ref.dtype not in VALUES or len(ref.shape) != 2 or scale is None:
            continue
        if scale.is_float and np.prod(scale.shape) in (1, ref.shape[0]):
            return CodeRows(ref, scale)
    return None
