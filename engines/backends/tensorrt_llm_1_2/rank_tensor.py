"""A tensor of one rank's file: its type and shape are known at once, its values when written."""

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.safetensors_file import DTYPES

BLOCK_ROWS = 4096
ALIGNMENT = 8  # of the data's start, as the safetensors library has it


@dataclass(frozen=True, slots=True)
class RankTensor:
    """`load` returns the values, of that type and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], npt.NDArray[Any]]

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        size: int = np.prod(self.shape, dtype=np.int64).item()
        return size * DTYPES[self.dtype].itemsize


def write_tensors(path: Path, tensors: Sequence[RankTensor]) -> None:
    """Write a safetensors file; one tensor at a time is in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.num_bytes
        entry = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
        header[tensor.name] = entry
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            values = tensor.load()
            if values.shape != tensor.shape or values.dtype != DTYPES[tensor.dtype]:
                raise AssertionError(f"{tensor.name}: {values.dtype} {values.shape}")
            rows = values.reshape(1, -1) if values.ndim < 2 else values
            for start in range(0, len(rows), BLOCK_ROWS):
                block = np.ascontiguousarray(rows[start : start + BLOCK_ROWS])
                file.write(block.view(np.uint8).data)
