"""A tensor of one rank's file: its type and shape are known at once, its values when written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.stored.safetensors_file import DTYPES, header_bytes

BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class RankTensor:
    """`load` returns the values, of that type and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], npt.NDArray[Any]]


def write_tensors(path: Path, tensors: Sequence[RankTensor]) -> None:
    """Write a safetensors file; one tensor at a time is in memory."""
    told = ((tensor.name, tensor.dtype, tensor.shape) for tensor in tensors)
    with path.open("wb") as file:
        file.write(header_bytes(told, {"format": "pt"}))
        for tensor in tensors:
            values = tensor.load()
            if values.shape != tensor.shape or values.dtype != DTYPES[tensor.dtype]:
                raise AssertionError(f"{tensor.name}: {values.dtype} {values.shape}")
            rows = values.reshape(1, -1) if values.ndim < 2 else values
            for start in range(0, len(rows), BLOCK_ROWS):
                block = np.ascontiguousarray(rows[start : start + BLOCK_ROWS])
                file.write(block.view(np.uint8).data)
