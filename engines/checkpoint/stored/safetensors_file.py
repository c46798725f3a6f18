"""Lazy, validated, torch-free access to the tensors of one safetensors file.

Source: the safetensors format, github.com/huggingface/safetensors README: 8 bytes of header length,
a JSON header, then the data; offsets are relative to the end of the header.
"""

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.stored.no_overlap import check_no_overlap
from nemotrt.engines.model.numerics import FLOATS, SAFETENSORS
from nemotrt.errors import ArtefactError
from nemotrt.files.text_file import GET_AGAIN, parse_json

DTYPES: dict[str, np.dtype[Any]] = {
    **{word: item.numpy for word, item in SAFETENSORS.items()},
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
FLOAT_DTYPES = ("F64", *(item.safetensors for item in FLOATS))
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
COMPARED_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class TensorRef:
    """Where one tensor lies: `offset` counts from the start of `path`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    num_bytes: int

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The tensor's element type in numpy (ml_dtypes for bfloat16 and float8)."""
        return DTYPES[self.dtype]

    @property
    def is_float(self) -> bool:
        """Whether the elements are 16, 32 or 64 bit floating point."""
        return self.dtype in FLOAT_DTYPES

    def map(self) -> npt.NDArray[Any]:
        """Return the tensor as a read-only view of the mapped file; nothing is read yet."""
        if self.num_bytes == 0:
            return np.empty(self.shape, self.numpy_dtype)
        raw = np.memmap(self.path, np.uint8, "r", offset=self.offset, shape=(self.num_bytes,))
        return raw.view(self.numpy_dtype).reshape(self.shape)

    def rows(self, part: slice) -> npt.NDArray[Any]:
        """Return rows of the tensor, or all of a scalar; nothing is read yet."""
        return self.map()[part] if self.shape else self.map()

    @property
    def parts(self) -> "tuple[TensorRef, ...]":
        """The stored tensors that the values are made of: itself alone."""
        return (self,)

    def read(self, start: int, num_bytes: int) -> bytes:
        """Return `num_bytes` raw bytes of the tensor, from byte `start` of it."""
        with self.path.open("rb") as file:
            file.seek(self.offset + start)
            return file.read(num_bytes)

    def is_same(self, other: "TensorRef") -> bool:
        """Whether the other has the same type, shape and bytes."""
        if (self.dtype, self.shape) != (other.dtype, other.shape):
            return False
        starts = range(0, self.num_bytes, COMPARED_BYTES)
        blocks = ((start, min(COMPARED_BYTES, self.num_bytes - start)) for start in starts)
        return all(self.read(*block) == other.read(*block) for block in blocks)


def read_header(path: Path) -> tuple[dict[str, TensorRef], dict[str, str]]:
    """Return the tensors of the safetensors file `path` by name, and its metadata.

    Raises:
        ArtefactError: the file is missing, truncated, or its header is not valid.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                raise ArtefactError(f"{path} is truncated: it has {size} bytes; {GET_AGAIN}.")
            (length,) = struct.unpack("<Q", prefix)
            if length > MAX_HEADER_BYTES or 8 + length > size:
                raise ArtefactError(
                    f"{path} is truncated or not safetensors: the header claims {length} bytes, "
                    f"the file has {size}; {GET_AGAIN}."
                )
            text = file.read(length)
    except OSError as error:
        raise ArtefactError(f"{path} can't be read: {error.strerror}.") from error
    header = parse_json(text, f"{path}: its header")
    if not isinstance(header, dict):
        raise ArtefactError(f"{path} has a header that is not a JSON object.")
    metadata = header.pop("__metadata__", {})
    start = 8 + length
    refs = {name: _entry(path, name, entry, start, size) for name, entry in header.items()}
    check_no_overlap(path, ((r.offset, r.num_bytes, r.name) for r in refs.values()))
    return refs, metadata if isinstance(metadata, dict) else {}


def header_bytes(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str] | None = None
) -> bytes:
    """Return the header of a file that holds these tensors one after another.

    Each has its name, its type in safetensors' word, and its shape. The header is padded so that
    the data starts at a multiple of 8.
    """
    table: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        end = position + math.prod(shape) * DTYPES[dtype].itemsize
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _entry(path: Path, name: str, entry: Any, start: int, size: int) -> TensorRef:
    """Return the validated header entry of one tensor."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: tensor {name} has a malformed header entry.") from error
    if dtype not in DTYPES:
        raise ArtefactError(f"{path}: tensor {name} has dtype {dtype!r}, which is not supported.")
    numbers = [begin, end, *shape] if isinstance(shape, list) else [None]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise ArtefactError(f"{path}: tensor {name} has a malformed shape or offset.")
    if not begin <= end <= size - start:
        raise ArtefactError(
            f"{path} is truncated: tensor {name} needs bytes up to {start + end}, "
            f"the file has {size}; {GET_AGAIN}."
        )
    num_bytes = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != num_bytes:
        raise ArtefactError(
            f"{path}: tensor {name} spans {end - begin} bytes, but {dtype} {shape} has {num_bytes}."
        )
    return TensorRef(name, dtype, tuple(shape), path, start + begin, num_bytes)
