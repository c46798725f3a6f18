"""A quantized linear's weight read back a few rows at a time: codes, and what the scales mean."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.packed import INT4_WORD
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import SAFETENSORS, NumberFormat
from nemotrt.quantize.conversion.convert import SMALLEST_AMAX

Floats = npt.NDArray[np.float32]
_BYTES = np.arange(256, dtype=np.uint8)
VALUES: dict[str, Floats] = {  # of each byte that a code can be
    item.safetensors: _BYTES.view(item.numpy).astype(np.float32)
    for item in (NumberFormat.FP8, NumberFormat.INT8)
}
VALUES[INT4_WORD] = VALUES[NumberFormat.INT8.safetensors]  # decoded


@dataclass(frozen=True, slots=True)
class CodeRows:
    """Codes [out, in] and their weight scale: per row, per group of a row, or one."""

    codes: TensorRef
    scale: TensorRef

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape, [out, in]."""
        return self.codes.shape

    @property
    def code(self) -> NumberFormat:
        """The format of a code."""
        return SAFETENSORS.get(self.codes.dtype, NumberFormat.INT4)

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale serves all rows."""
        return self.scale.num_bytes == self.scale.numpy_dtype.itemsize

    def scales(self) -> Floats:
        """Return the scale of each row, [out]; not of codes with scales of groups."""
        values = self.scale.map().astype(np.float32).reshape(-1)
        return np.broadcast_to(values, (self.codes.shape[0],))

    def group_scales(self, rows: slice) -> Floats:
        """Return the scales of some rows' groups, [rows, groups]."""
        return self.scale.rows(rows).astype(np.float32).reshape(rows.stop - rows.start, -1)

    def read(self, rows: slice) -> Floats:
        """Return the codes of `rows` as float32 [rows, in]; NaN codes are NaN."""
        raw = np.asarray(self.codes.rows(rows)).view(np.uint8)
        return VALUES[self.codes.dtype][raw]

    def scale_of(self, amax: Floats, dtype: str) -> Floats:
        """Return the scale that the format gives weights of `dtype` with the largest `amax`."""
        smallest = SMALLEST_AMAX.get(dtype, SMALLEST_AMAX["F32"])
        clamped = np.where(amax > 0, np.maximum(amax, smallest), np.float32(0))
        scale: Floats = (clamped / np.float32(self.code.largest_code)).astype(np.float32)
        return scale


def code_rows(tensors: Mapping[str, TensorRef], module: str) -> CodeRows | None:
    """Return where the codes and scales of `module` are, or None if it is not quantized.

    `tensors` are spelled as ModelOpt's. Scales of another number than one, one a row or one of each
    group of a row give None too: nothing can be read then.
    """
    ref, scale = tensors.get(f"{module}.weight"), tensors.get(f"{module}.weight_scale")
    if ref is None or ref.dtype not in VALUES or len(ref.shape) != 2 or scale is None:
        return None
    is_grouped = ref.dtype == INT4_WORD and scale.shape[:1] == ref.shape[:1]
    is_known = is_grouped or np.prod(scale.shape) in (1, ref.shape[0])
    return CodeRows(ref, scale) if scale.is_float and is_known else None
