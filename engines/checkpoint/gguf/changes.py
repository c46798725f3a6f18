"""What llama.cpp's converter does to tensors, and undone: shapes, order of rows, values."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.gguf.names import Change

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


def stored_shape(change: Change, shape: tuple[int, ...], num_groups: int) -> tuple[int, ...]:
    """Return the shape in a file of a tensor of the hub's; of an expert's weight, its own part."""
    if change in (Change.AXIS, Change.A):
        return (*shape, 1)
    if change is Change.GROUPS:
        return (num_groups, shape[0] // num_groups)
    if change is Change.CONV:
        return (shape[0], shape[-1])
    return shape


def hub_shape(change: Change, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape on the hub of a tensor of a file."""
    if change in (Change.AXIS, Change.A, Change.GROUPS):
        return (int(np.prod(shape)),)
    if change is Change.CONV:
        return (shape[0], 1, shape[-1])
    return shape


def stored_rows(head_dim: int, rows: Numbers) -> Numbers:
    """Return where rows of q or k are in a file: h, i + half * j is stored as h, 2 * i + j."""
    head, inside = rows // head_dim, rows % head_dim
    half = head_dim // 2
    return head * head_dim + 2 * (inside % half) + inside // half


def hub_rows(head_dim: int, rows: Numbers) -> Numbers:
    """Return which rows of the hub's q or k are stored in these: the inverse of `stored_rows`."""
    head, inside = rows // head_dim, rows % head_dim
    return head * head_dim + inside // 2 + head_dim // 2 * (inside % 2)


def a_log(a: npt.NDArray[Any]) -> Floats:
    """Return log(-A)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.log(-a.astype(np.float32))
    return result


def a(log: npt.NDArray[Any]) -> Floats:
    """Return A = -exp(A_log)."""
    with np.errstate(over="ignore"):  # whoever writes it looks for infinity
        result: Floats = -np.exp(log.astype(np.float64)).astype(np.float32)
    return result
