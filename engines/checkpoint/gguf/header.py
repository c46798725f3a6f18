"""The head of a GGUF file, written: metadata and the entries of its tensors; `file.py` reads it.

Source: the format's description, github.com/ggml-org/ggml, docs/gguf.md, version 3.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD, TYPES
from nemotrt.engines.checkpoint.gguf.file import ARRAY, MAGIC, SCALARS, STRING, VERSIONS

# An int is 32 bits without a sign, unless its numpy type says otherwise; a float has 32 bits.
Value = str | bool | int | float | np.int32 | list[str] | npt.NDArray[np.int32]
ALIGNMENT = 32
NUMBERS = {np.dtype(text): number for number, text in SCALARS.items()}  # of a scalar's type
TYPE_NUMBERS = {item.word: number for number, item in TYPES.items()}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor to be: its name, its type's word, and its shape with rows first."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of its data."""
        kind = BY_WORD[self.kind]
        return math.prod(self.shape) // kind.block_size * kind.block_bytes


def aligned(num_bytes: int) -> int:
    """Return the next place where a tensor may begin."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def head_bytes(metadata: Mapping[str, Value], tensors: Iterable[Stored]) -> bytes:
    """Return all that stands before the data; tensors lie there in order, each aligned."""
    every = list(tensors)
    found = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(every), len(metadata))]
    for key, value in metadata.items():
        found += [_text(key), _value(value)]
    place = 0
    for tensor in every:
        dims = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        found += [_text(tensor.name), dims, struct.pack("<IQ", TYPE_NUMBERS[tensor.kind], place)]
        place += aligned(tensor.num_bytes)
    head = b"".join(found)
    return head + bytes(aligned(len(head)) - len(head))


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Value) -> bytes:
    """Return a value with its type before it."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    if isinstance(value, np.ndarray):
        kind = NUMBERS[value.dtype]
        return struct.pack("<IIQ", ARRAY, kind, value.size) + value.tobytes()
    scalar: Any = value
    if isinstance(value, bool):
        scalar = np.bool_(value)
    elif isinstance(value, int):
        scalar = np.uint32(value)
    elif isinstance(value, float):
        scalar = np.float32(value)
    return struct.pack("<I", NUMBERS[scalar.dtype]) + bytes(scalar.tobytes())
