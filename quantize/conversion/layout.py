"""Where every byte of an output shard goes: known before a single weight is read."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.stored.safetensors_file import DTYPES, TensorRef, header_bytes
from nemotrt.engines.model.numerics import Numbers

NO_FACTORS: npt.NDArray[np.float32] = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """One weight to quantize, and the factors that SmoothQuant moves into it."""

    name: str
    source: TensorRef
    numbers: Numbers  # that become of its weights
    columns: npt.NDArray[np.float32] = field(default_factory=lambda: NO_FACTORS)  # [in]
    rows: npt.NDArray[np.float32] = field(default_factory=lambda: NO_FACTORS)  # [out]
    is_offset_binary: bool = False  # int8 codes as code + 128
    amax: np.float32 | None = None  # of all weights that share its scale; None: its own alone
    pairs_rows: bool = False  # int4 codes of two rows share bytes, as in ModelOpt's layout
    rounded: Path | None = None  # where int4 codes and scales are that were found before
    group_size: int = 0  # inputs that share a scale of a row; 0: all of them

    @property
    def module(self) -> str:
        """The module's name: the weight's without its leaf."""
        return self.name.removesuffix(".weight")

    @property
    def num_groups(self) -> int:
        """Scales of a row."""
        return self.num_columns // self.group_size if self.group_size else 1

    @property
    def num_rows(self) -> int:
        """Output channels."""
        return self.source.shape[0]

    @property
    def num_columns(self) -> int:
        """Input channels."""
        return self.source.shape[1]


@dataclass(frozen=True, slots=True)
class Codes:
    """The codes of a linear."""

    linear: Linear


@dataclass(frozen=True, slots=True)
class Scales:
    """The weight scales of a linear."""

    linear: Linear


@dataclass(frozen=True, slots=True)
class SecondScale:
    """The one scale of a linear's scales; some layouts store what it divides by."""

    linear: Linear
    is_inverse: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """A matrix that is stored as bytes of its own, row by row.

    `write` takes the source's file, rows, a sink's `put`, and where the matrix begins. A chunk has
    a multiple of `unit` rows.
    """

    source: TensorRef
    unit: int
    write: Callable[[int, slice, Callable[[int, memoryview], None], int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the output: copied from the source, known from the plan, or converted."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: TensorRef | bytes | Codes | Scales | SecondScale | Encoded

    @property
    def num_bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def literal(name: str, dtype: str, values: npt.ArrayLike) -> Entry:
    """Return the entry for small `values`, stored as `dtype`."""
    array = np.asarray(values).astype(DTYPES[dtype])
    return Entry(name, dtype, array.shape, array.tobytes())


@dataclass(frozen=True)
class Shard:
    """One output file: its header and the place of every tensor."""

    file_name: str
    entries: tuple[Entry, ...]

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where each tensor starts, from the start of the file."""
        position, result = len(self.header), {}
        for entry in self.entries:
            result[entry.name] = position
            position += entry.num_bytes
        return result

    @cached_property
    def header(self) -> bytes:
        """What stands before the data."""
        tensors = ((entry.name, entry.dtype, entry.shape) for entry in self.entries)
        return header_bytes(tensors, {"format": "pt"})

    @property
    def target_name(self) -> str:
        """The file's name."""
        return self.file_name

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return len(self.header) + sum(entry.num_bytes for entry in self.entries)


@dataclass(frozen=True)
class FilePart:
    """What one shard of the source gives to the one output file: its tensors and their places.

    `file_name` is the source shard's, by which a journal knows the part; `num_bytes` is the whole
    output file's size.
    """

    file_name: str
    target_name: str
    header: bytes  # of the file, in its first part
    entries: tuple[Entry, ...]
    offsets: dict[str, int]
    num_bytes: int


def make_shard(source: Path, entries: Iterable[Entry]) -> Shard:
    """Return the output shard for `source`: widest types first, so that each tensor is aligned."""
    ordered = sorted(entries, key=lambda entry: -DTYPES[entry.dtype].itemsize)
    return Shard(source.name, tuple(ordered))
