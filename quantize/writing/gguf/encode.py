"""Rows of one tensor as a GGUF file has them: reordered, changed, in its type."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD
from nemotrt.engines.checkpoint.gguf.changes import a, hub_rows
from nemotrt.engines.checkpoint.gguf.names import Change
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.conversion.blocks import ENCODERS, LARGEST_SCALE, packed_q4_0
from nemotrt.quantize.conversion.convert import read_rounded, read_rows
from nemotrt.quantize.conversion.kernels import Weights, widened
from nemotrt.quantize.conversion.layout import Encoded, Entry

Put = Callable[[int, memoryview], None]


def tensor_entry(
    name: str,
    ref: TensorRef,
    kind: str,
    change: Change,
    head_dim: int,
    rounded: Path | None = None,
) -> Entry:
    """Return the entry of a tensor of the hub's, which becomes one of type `kind`.

    `name` is the hub's. The bytes of a tensor that stays as it is are copied. `rounded` is where
    codes and scales of a Q4_0 tensor are that were found before.

    Raises:
        ConfigError: whole blocks of the type do not fit its rows.
    """
    is_matrix = len(ref.shape) == 2
    matrix = ref if is_matrix else _as_matrix(ref)
    rows, columns = matrix.shape
    block = BY_WORD[kind]
    if columns % block.block_size:
        raise ConfigError(
            f"{name} has {columns} input channels; {kind} has blocks of {block.block_size}. Use "
            "--format modelopt or compressed-tensors."
        )
    row_bytes = columns // block.block_size * block.block_bytes
    unit = head_dim if change is Change.HEADS else 1
    shape = (rows * row_bytes,)
    if kind == ref.dtype and unit == 1 and change is not Change.A:
        return Entry(name, "U8", shape, ref)
    write = partial(_write_rows, name, matrix, kind, change, unit, row_bytes, rounded)
    return Entry(name, "U8", shape, Encoded(matrix, unit, write))


def _as_matrix(ref: TensorRef) -> TensorRef:
    """Return a tensor of one axis, or a convolution's weight, as a matrix."""
    shape = (1, *ref.shape) if len(ref.shape) == 1 else (ref.shape[0], ref.shape[-1])
    return TensorRef(ref.name, ref.dtype, shape, ref.path, ref.offset, ref.num_bytes)


def _write_rows(
    name: str,
    ref: TensorRef,
    kind: str,
    change: Change,
    unit: int,
    row_bytes: int,
    rounded: Path | None,
    fd: int,
    rows: slice,
    put: Put,
    offset: int,
) -> None:
    """Convert rows of file `fd` and put them where the matrix at `offset` has them.

    Raises:
        ArtefactError: they hold NaN or infinity, or weights that the type can't hold.
    """
    count = rows.stop - rows.start
    order = hub_rows(unit, np.arange(count)) if change is Change.HEADS else slice(count)
    raw: npt.NDArray[np.generic]
    if rounded is not None:
        codes, scales = read_rounded(rounded, rows)
        raw = packed_q4_0(codes[order], scales[order])
        _check_scales(name, scales, kind, rows)
    else:
        weights, has_blocks = read_rows(fd, ref, rows)[order], kind in ENCODERS
        raw = _blocks(name, weights, kind, rows) if has_blocks else _floats(weights, kind, change)
    put(offset + rows.start * row_bytes, raw.reshape(-1).view(np.uint8).data)


def _blocks(name: str, weights: Weights, kind: str, rows: slice) -> npt.NDArray[np.uint8]:
    raw, scales = ENCODERS[kind](weights)
    _check_scales(name, scales, kind, rows)
    return raw


def _check_scales(name: str, scales: npt.NDArray[np.float32], kind: str, rows: slice) -> None:
    """Raise ArtefactError if a type can't hold scales [rows, groups]."""
    bad = np.flatnonzero(~(scales <= np.float32(LARGEST_SCALE)).all(axis=1))
    if bad.size:
        what = "NaN or infinity" if not np.isfinite(scales[bad]).all() else "weights too large"
        raise ArtefactError(
            f"{name} holds {what}, first near row {rows.start + int(bad[0])}; {kind} can't hold it."
        )


def _floats(weights: Weights, kind: str, change: Change) -> npt.NDArray[np.generic]:
    """Return rows as floats of the type."""
    if kind == "BF16" and weights.dtype == np.uint16:
        return weights
    values = widened(weights)
    if change is Change.A:
        values = a(values)
    return values if kind == "F32" else values.astype(np.float16)
