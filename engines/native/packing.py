"""The weights file of a native engine: tensors as the kernels read them, mapped as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16

from nemotrt.engines.native.program import (
    ALIGNMENT,
    PANEL,
    WEIGHTS_FILE,
    TensorKind,
    TensorSpec,
    round_up,
)

PANEL_KINDS = {"float32": TensorKind.PANELS_FLOAT, "bfloat16": TensorKind.PANELS_BF16}
SLICE_PANELS = 256  # packed at once: a few MB of work space


class WeightsFile:
    """Tensors written one after another to `folder`, each on a page of its own."""

    def __init__(self, folder: Path) -> None:
        """Start an empty file."""
        self.path = folder / WEIGHTS_FILE
        self.path.touch()
        self.tensors: list[TensorSpec] = []
        self._index: dict[tuple[str, TensorKind], int] = {}

    def find(self, name: str, kind: TensorKind) -> int | None:
        """Return the index of a tensor that is already there."""
        return self._index.get((name, kind))

    def add_values(self, name: str, values: npt.NDArray[Any]) -> int:
        """Append a matrix or vector row by row, bfloat16 as it is and all else as float32."""
        kind = TensorKind.TABLE_BF16 if values.dtype == bfloat16 else TensorKind.VALUES
        matrix = np.atleast_2d(values)
        rows, columns = matrix.shape
        spec = self._begin(name, kind, rows, columns)
        matrix = matrix if kind is TensorKind.TABLE_BF16 else matrix.astype(np.float32)
        self._append(spec.offset, [matrix])
        return self._index[name, kind]

    def add_panels(self, name: str, weight: npt.NDArray[Any]) -> int:
        """Append a linear's weight [out, in], float32, bfloat16 or int8, as panels of 16 rows."""
        is_int8 = weight.dtype == np.int8
        kind = TensorKind.PANELS_INT8 if is_int8 else PANEL_KINDS[weight.dtype.name]
        rows, columns = weight.shape
        spec = self._begin(name, kind, rows, columns)
        step = SLICE_PANELS * PANEL
        parts = (panels(weight[start : start + step]) for start in range(0, rows, step))
        self._append(spec.offset, parts)
        return self._index[name, kind]

    def _begin(self, name: str, kind: TensorKind, rows: int, columns: int) -> TensorSpec:
        """Register a tensor after the last one."""
        last = self.tensors[-1] if self.tensors else None
        offset = round_up(last.offset + last.num_bytes, ALIGNMENT) if last else 0
        spec = TensorSpec(name=name, kind=kind, rows=rows, columns=columns, offset=offset)
        self._index[name, kind] = len(self.tensors)
        self.tensors.append(spec)
        return spec

    def _append(self, offset: int, parts: Any) -> None:
        """Write arrays one after another from `offset`."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            for part in parts:
                # not array.tofile: its OSError for a full disk has no errno
                file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


def panels(weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return [panels, in / group, 16, group] of a weight [out, in], padded with zeros.

    A group is one input, or a pair of them for int8.
    """
    rows, columns = weight.shape
    group = 2 if weight.dtype == np.int8 else 1
    padded = np.zeros((round_up(rows), round_up(columns)), weight.dtype)
    padded[:rows, :columns] = weight
    cut = padded.reshape(-1, PANEL, padded.shape[1] // group, group)
    return np.ascontiguousarray(cut.transpose(0, 2, 1, 3))
