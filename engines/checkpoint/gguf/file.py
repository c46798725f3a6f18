"""Lazy, validated access to one GGUF file: its metadata, and where its tensors lie.

Source: the format's description, github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3. We read
it ourselves: the `gguf` package trusts the lengths that a file claims.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD, TYPES
from nemotrt.engines.checkpoint.stored.no_overlap import check_no_overlap
from nemotrt.errors import ArtefactError
from nemotrt.files.text_file import GET_AGAIN

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SUFFIX = ".gguf"
MAX_DIMS = 4
MAX_TEXT_BYTES = 1 << 24
MAX_HEADER_BYTES = 1 << 28  # of metadata: a vocabulary of 256k tokens with merges takes 10 MB
STRING, ARRAY = 8, 9
SCALARS: dict[int, str] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor's entry: its type's word, its shape with rows first, and its bytes in the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A file's metadata and tensors."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    def get(self, key: str) -> Any:
        """Return a value of the metadata, which must be there."""
        if key not in self.metadata:
            raise ArtefactError(f"{self.path}: the metadata has no {key}.")
        return self.metadata[key]

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the model's kind."""
        return str(self.get("general.architecture"))


def read_gguf(path: Path) -> GgufFile:
    """Return what the file holds; no tensor is read.

    Raises:
        ArtefactError: it is missing, truncated, or not GGUF of a version and types known here.
    """
    try:
        size = path.stat().st_size
        raw: npt.NDArray[np.uint8] = np.memmap(path, np.uint8, "r") if size else np.empty(0, "u1")
    except OSError as error:
        raise ArtefactError(f"{path} can't be read: {error.strerror}.") from error
    reader = _Reader(path, raw)
    if reader.take(4) != MAGIC:
        raise ArtefactError(f"{path} is no GGUF file: it does not begin with {MAGIC.decode()}.")
    version = reader.number("<u4")
    if version not in VERSIONS:
        raise ArtefactError(
            f"{path} is GGUF version {version}; versions {VERSIONS[0]} and {VERSIONS[1]} are read. "
            "Convert it again with a llama.cpp of today."
        )
    num_tensors, num_values = reader.number("<u8"), reader.number("<u8")
    metadata: dict[str, Any] = {}
    for _ in range(reader.count(num_values, 12)):
        key = reader.text()
        if key in metadata:
            raise ArtefactError(f"{path}: the metadata has {key} twice.")
        metadata[key] = reader.value(reader.number("<u4"))
    entries = [_entry(reader) for _ in range(reader.count(num_tensors, 24))]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8 or alignment > 1 << 20:
        raise ArtefactError(f"{path}: general.alignment is {alignment!r}.")
    start = -(-reader.position // alignment) * alignment
    tensors = {
        name: _placed(path, name, kind, shape, start + offset, size)
        for name, kind, shape, offset in entries
    }
    if len(tensors) != len(entries):
        raise ArtefactError(f"{path}: two tensors have one name.")
    check_no_overlap(path, ((t.offset, t.num_bytes, t.name) for t in tensors.values()))
    return GgufFile(path, metadata, tensors)


class _Reader:
    """Takes values off the front of a file, none beyond its end."""

    def __init__(self, path: Path, raw: npt.NDArray[np.uint8]) -> None:
        self.path, self.position = path, 0
        self._raw, self._end = raw, min(raw.size, MAX_HEADER_BYTES)

    def take(self, num_bytes: int) -> bytes:
        end = self.position + num_bytes
        if num_bytes < 0 or end > self._end:
            raise ArtefactError(
                f"{self.path} is truncated or damaged: its header asks for {num_bytes} bytes at "
                f"{self.position}, the file has {self._raw.size}; {GET_AGAIN}."
            )
        found = self._raw[self.position : end].tobytes()
        self.position = end
        return found

    def number(self, kind: str) -> int:
        return int(np.frombuffer(self.take(np.dtype(kind).itemsize), kind)[0])

    def count(self, claimed: int, least_bytes: int) -> int:
        """Return a count of entries, which the rest of the file must have room for."""
        if claimed * least_bytes > self._end - self.position:
            raise ArtefactError(
                f"{self.path} is truncated or damaged: it claims {claimed} entries at "
                f"{self.position}, the file has {self._raw.size} bytes; {GET_AGAIN}."
            )
        return claimed

    def text(self) -> str:
        length = self.number("<u8")
        if length > MAX_TEXT_BYTES:
            raise ArtefactError(f"{self.path}: a text of {length} bytes at {self.position}.")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise ArtefactError(f"{self.path}: a text at {self.position}: {error}.") from None

    def value(self, kind: int) -> Any:
        """Return a value of the metadata; arrays of numbers as numpy's, of texts as lists."""
        if kind == STRING:
            return self.text()
        if kind in SCALARS:
            return np.frombuffer(self.take(np.dtype(SCALARS[kind]).itemsize), SCALARS[kind])[
                0
            ].item()
        if kind != ARRAY:
            raise ArtefactError(f"{self.path}: metadata of type {kind} at {self.position}.")
        inner, length = self.number("<u4"), self.number("<u8")
        if inner == STRING:
            return [self.text() for _ in range(self.count(length, 8))]
        if inner not in SCALARS:
            raise ArtefactError(f"{self.path}: an array of type {inner} at {self.position}.")
        item = np.dtype(SCALARS[inner])
        return np.frombuffer(self.take(self.count(length, item.itemsize) * item.itemsize), item)


def _entry(reader: _Reader) -> tuple[str, str, tuple[int, ...], int]:
    """Return a tensor's name, type, shape with rows first, and offset in the data."""
    name, num_dims = reader.text(), reader.number("<u4")
    if not 1 <= num_dims <= MAX_DIMS:
        raise ArtefactError(f"{reader.path}: tensor {name} has {num_dims} dimensions.")
    dims = [reader.number("<u8") for _ in range(num_dims)]
    kind, offset = reader.number("<u4"), reader.number("<u8")
    if kind not in TYPES:
        known = ", ".join(item.word for item in TYPES.values())
        raise ArtefactError(
            f"{reader.path}: tensor {name} is of ggml's type {kind}, which is not read; known: "
            f"{known}. Take a file of those, such as one quantized to Q4_K_M or Q8_0."
        )
    return name, TYPES[kind].word, tuple(reversed(dims)), offset


def _placed(
    path: Path, name: str, word: str, shape: tuple[int, ...], offset: int, size: int
) -> GgufTensor:
    """Return a tensor whose bytes are all in the file."""
    kind = BY_WORD[word]
    if shape[-1] % kind.block_size:
        raise ArtefactError(f"{path}: tensor {name} has {shape[-1]} inputs, no whole {word} block.")
    num_bytes = math.prod(shape) // kind.block_size * kind.block_bytes
    if offset + num_bytes > size:
        raise ArtefactError(
            f"{path} is truncated: tensor {name} needs bytes up to {offset + num_bytes}, the file "
            f"has {size}; {GET_AGAIN}."
        )
    return GgufTensor(name, word, shape, offset, num_bytes)
