"""A GGUF file's tensors by the hub's names, with what llama.cpp's converter did to them undone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD
from nemotrt.engines.checkpoint.gguf.changes import Floats, a_log, hub_shape, stored_rows
from nemotrt.engines.checkpoint.gguf.file import GgufFile, GgufTensor
from nemotrt.engines.checkpoint.gguf.names import ARCHITECTURES, Change, hub_name
from nemotrt.engines.checkpoint.quantized.decoded import decoded
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.errors import ArtefactError, ConfigError


def check_architecture(file: GgufFile) -> str:
    """Return the file's architecture, one that is known here.

    Raises:
        ConfigError: it is another.
    """
    found = file.architecture
    if found not in ARCHITECTURES:
        raise ConfigError(
            f"{file.path} is a {found!r} model; GGUF files of {', '.join(ARCHITECTURES)} are read. "
            "Give the Hugging Face checkpoint that it was converted from."
        )
    return found


def hub_tensors(file: GgufFile) -> Iterator[tuple[str, TensorRef]]:
    """Yield each tensor by its hub name; one without such a name keeps its own."""
    architecture = check_architecture(file)
    for stored, tensor in file.tensors.items():
        name, change = hub_name(architecture, stored)
        if change is not Change.EXPERTS:
            yield name, _restored(file, architecture, change, tensor)
            continue
        for number, part in enumerate(_experts(file, tensor)):
            yield name.format(number), _restored(file, architecture, change, part)


def _experts(file: GgufFile, tensor: GgufTensor) -> Iterator[GgufTensor]:
    """Yield the part of each expert, [out, in]."""
    if len(tensor.shape) != 3:
        raise ArtefactError(f"{file.path}: {tensor.name} has {len(tensor.shape)} axes, not 3.")
    size = tensor.num_bytes // max(1, tensor.shape[0])
    for number in range(tensor.shape[0]):
        place = tensor.offset + number * size
        yield replace(tensor, shape=tensor.shape[1:], offset=place, num_bytes=size)


def _restored(file: GgufFile, architecture: str, change: Change, tensor: GgufTensor) -> TensorRef:
    """Return a tensor as the hub has it: shape, order of rows, values."""
    ref = _stored(file, tensor)
    if change is Change.HEADS:
        key = "attention.key_length"
        head_dim = file.get(f"{architecture}.{key}")
        if not isinstance(head_dim, int) or head_dim < 2 or head_dim % 2:
            raise ArtefactError(f"{file.path}: {architecture}.{key} is {head_dim!r}.")
        if ref.shape[0] % head_dim:
            raise ArtefactError(f"{file.path}: {tensor.name} has no whole heads of {head_dim}.")
        return decoded(ref.name, ref.shape, ref.parts, partial(_unpermuted, ref, head_dim))
    shape = hub_shape(change, ref.shape)
    if change is Change.A:
        flat = replace(ref, shape=shape)
        return decoded(ref.name, shape, (flat,), lambda part: a_log(flat.map()[part]))
    return ref if shape == ref.shape else replace(ref, shape=shape)


def _stored(file: GgufFile, tensor: GgufTensor) -> TensorRef:
    """Return a tensor of floats as it lies there; one of blocks as what they stand for."""
    kind, place = BY_WORD[tensor.kind], (file.path, tensor.offset, tensor.num_bytes)
    if kind.decode is None:
        return TensorRef(tensor.name, kind.safetensors, tensor.shape, *place)
    if len(tensor.shape) != 2:
        raise ArtefactError(
            f"{file.path}: {tensor.name} has {len(tensor.shape)} axes of {kind.word}; matrices "
            "alone are read in blocks."
        )
    row_bytes = tensor.shape[1] // kind.block_size * kind.block_bytes
    raw = TensorRef(tensor.name, "U8", (tensor.shape[0], row_bytes), *place)
    decode = kind.decode

    def rows(part: slice) -> Floats:
        blocks = np.ascontiguousarray(raw.map()[part]).reshape(-1, kind.block_bytes)
        return decode(blocks).reshape(part.stop - part.start, tensor.shape[1])

    return decoded(tensor.name, tensor.shape, (raw,), rows)


def _unpermuted(ref: TensorRef, head_dim: int, part: slice) -> Floats:
    """Return rows in the hub's order."""
    rows = np.arange(part.start, part.stop)
    if not rows.size:
        return np.empty((0, *ref.shape[1:]), np.float32)
    first = int(rows[0]) // head_dim * head_dim
    last = (int(rows[-1]) // head_dim + 1) * head_dim
    stored = stored_rows(head_dim, rows) - first
    found: Floats = ref.rows(slice(first, last))[stored].astype(np.float32)
    return found
