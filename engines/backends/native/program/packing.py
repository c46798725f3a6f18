"""The weights file of a native engine: tensors as the kernels read them, mapped as they are."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.program.program import (
    ALIGNMENT,
    CELL,
    PANEL,
    ROW_KINDS,
    WEIGHTS_FILE,
    TensorKind,
    WeightTensor,
    round_up,
)

AS_GIVEN = (*ROW_KINDS, TensorKind.PANELS_INT4)
RowsOf = Callable[[slice], npt.NDArray[Any]]  # some rows of a matrix
Piece = TypeVar("Piece")
SLICE_ELEMENTS = 4 << 20  # converted at once by a thread: tens of MB of work space


class WeightsFile:
    """Tensors written one after another to `folder`, each on a page of its own."""

    def __init__(self, folder: Path) -> None:
        """Start an empty file."""
        self.path = folder / WEIGHTS_FILE
        self.path.touch()
        self.tensors: list[WeightTensor] = []
        self._index: dict[tuple[str, TensorKind], int] = {}

    def find(self, name: str, kind: TensorKind) -> int | None:
        """Return the index of a tensor that is already there."""
        return self._index.get((name, kind))

    def add_values(self, name: str, values: npt.NDArray[np.float32]) -> int:
        """Append a float32 matrix or vector row by row."""
        matrix = np.atleast_2d(values.astype(np.float32))
        return self.add_rows(name, TensorKind.VALUES, matrix.shape, lambda part: matrix[part])

    def reserve(self, name: str, rows: int, columns: int) -> int:
        """Give a float32 matrix room in the file, a hole until somebody writes; return its index.

        Another tensor must follow: only then is the file as long.
        """
        self._begin(name, TensorKind.VALUES, rows, columns)
        return self._index[name, TensorKind.VALUES]

    def add_rows(
        self,
        name: str,
        kind: TensorKind,
        shape: tuple[int, ...],
        rows_of: RowsOf,
    ) -> int:
        """Append a matrix [rows, columns] and return its index.

        Args:
            name: its name in the program.
            kind: how it is stored; a linear's weight in panels of 16 rows.
            shape: of the whole matrix.
            rows_of: returns some rows, in the kind's type, for int4 as `int4_panels`; called from
                several threads.
        """
        return self.add_stack(name, kind, shape, [rows_of])

    def add_stack(
        self, name: str, kind: TensorKind, shape: tuple[int, ...], each: Sequence[RowsOf]
    ) -> int:
        """Append matrices of one shape as one tensor, each in whole panels; return its index."""
        rows, columns = shape
        spec = self._begin(
            name, kind, rows if len(each) == 1 else round_up(rows) * len(each), columns
        )
        step = max(SLICE_ELEMENTS // columns // PANEL, 1) * PANEL
        slices = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

        def convert(piece: tuple[RowsOf, slice]) -> npt.NDArray[Any]:
            rows_of, part = piece
            found = rows_of(part)
            return found if kind in AS_GIVEN else panels(found)

        self._append(spec.offset, in_order(convert, list(itertools.product(each, slices))))
        return self._index[name, kind]

    def _begin(self, name: str, kind: TensorKind, rows: int, columns: int) -> WeightTensor:
        """Register a tensor after the last one."""
        last = self.tensors[-1] if self.tensors else None
        offset = round_up(last.offset + last.num_bytes, ALIGNMENT) if last else 0
        spec = WeightTensor(name=name, kind=kind, rows=rows, columns=columns, offset=offset)
        self._index[name, kind] = len(self.tensors)
        self.tensors.append(spec)
        return spec

    def _append(self, offset: int, parts: Iterable[npt.NDArray[Any]]) -> None:
        """Write arrays one after another from `offset`."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            for part in parts:
                # not array.tofile: its OSError for a full disk has no errno
                file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


def in_order(
    convert: Callable[[Piece], npt.NDArray[Any]], pieces: list[Piece]
) -> Iterator[npt.NDArray[Any]]:
    """Yield the converted pieces, a few of them under way at a time."""
    if len(pieces) == 1:
        yield convert(pieces[0])
        return
    num_threads = len(os.sched_getaffinity(0))
    under_way: deque[Future[npt.NDArray[Any]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for part in pieces:
            under_way.append(pool.submit(convert, part))
            if len(under_way) > num_threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def panels(weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return [panels, in / group, 16, group] of a weight [out, in], padded with zeros.

    A group is one input, or a pair of them for int8 and bfloat16.
    """
    rows, columns = weight.shape
    size = weight.dtype.itemsize
    group = 2 if size == 2 or weight.dtype == np.int8 else 1
    padded = np.zeros((round_up(rows), round_up(columns)), weight.dtype)
    padded[:rows, :columns] = weight
    words = padded.view(f"u{group * size}")
    cut = words.reshape(-1, PANEL, words.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(cut).view(weight.dtype).reshape(*cut.shape, group)


def int4_panels(
    codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float16]
) -> npt.NDArray[np.uint8]:
    """Return [panels, cells, bytes] of codes [out, in] and scales [out, cells], padded.

    A cell has 16 scales, and of each 8 inputs 64 bytes: of each row the first four codes + 8 in the
    lower halves, the last four in the upper.
    """
    rows, columns = codes.shape
    cells = -(-columns // CELL)
    padded = np.full((round_up(rows), cells * CELL), 8, np.uint8)
    np.add(codes, 8, out=padded[:rows, :columns], casting="unsafe")
    halves = padded.reshape(-1, PANEL, cells, CELL // 8, 2, 4).transpose(4, 0, 2, 3, 1, 5)
    result = np.empty((len(padded) // PANEL, cells, PANEL * (2 + CELL // 2)), np.uint8)
    body = result[:, :, 2 * PANEL :].reshape(*result.shape[:2], CELL // 8, PANEL, 4)
    np.left_shift(halves[1], 4, out=body)
    body |= halves[0]
    result[:, :, 2 * PANEL :] = body.reshape(*result.shape[:2], -1)
    factors = np.zeros((len(padded), cells), np.float16)
    factors[:rows] = scales
    part = factors.reshape(-1, PANEL, cells).transpose(0, 2, 1)
    result[:, :, : 2 * PANEL] = np.ascontiguousarray(part).view(np.uint8)
    return result
