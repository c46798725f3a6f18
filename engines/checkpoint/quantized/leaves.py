"""The stored tensors of one linear, each checked as it is asked for."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.quantized.decoded import Rows, rows_of
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.errors import ArtefactError

FLOAT_TYPES = ("F32", "F16", "BF16")


class Leaves:
    """The tensors of one module, each checked as it is asked for."""

    def __init__(self, module: str, leaves: Mapping[str, TensorRef]) -> None:
        """Hold the tensors of `module` by their last names."""
        self.module, self.leaves = module, leaves

    def has(self, leaf: str) -> bool:
        """Whether there is such a tensor."""
        return leaf in self.leaves

    def take(self, leaf: str, dtypes: tuple[str, ...]) -> TensorRef:
        """Return a tensor that must be there, of one of the types."""
        ref = self.leaves.get(leaf)
        if ref is None:
            raise ArtefactError(f"tensor {self.module}.{leaf} is missing: its codes need it.")
        if ref.dtype not in dtypes:
            raise self.fault(ref, f"of type {' or '.join(dtypes)}")
        return ref

    def matrix(self, leaf: str, dtypes: tuple[str, ...]) -> TensorRef:
        """Return a tensor of two axes."""
        ref = self.take(leaf, dtypes)
        if len(ref.shape) != 2:
            raise self.fault(ref, "a matrix")
        return ref

    def shaped(self, leaf: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> TensorRef:
        """Return a tensor of that shape."""
        ref = self.take(leaf, dtypes)
        if ref.shape != shape:
            raise self.fault(ref, f"of shape {list(shape)}")
        return ref

    def one(self, leaf: str) -> np.float32:
        """Return the value of a tensor of one float."""
        ref = self.take(leaf, FLOAT_TYPES)
        if int(np.prod(ref.shape)) != 1:
            raise self.fault(ref, "one value")
        value = np.float32(ref.map().reshape(-1)[0])
        if not (np.isfinite(value) and value > 0):
            raise self.fault(ref, f"positive and finite, got {value}")
        return value

    def fault(self, ref: TensorRef, wanted: str) -> ArtefactError:
        """Return the error for a tensor that is not what it must be."""
        return ArtefactError(
            f"{ref.path}: {ref.name} is {ref.dtype} {list(ref.shape)}, it must be {wanted}."
        )


def grid(tensors: Leaves, leaf: str, dtypes: tuple[str, ...], scaled: tuple[int, int]) -> Rows:
    """Return the scales of a weight [out, in]: one, one per row, of groups, or of blocks."""
    ref, (rows, columns) = tensors.take(leaf, dtypes), scaled
    shape = tuple(n for n in ref.shape if n != 1) if len(ref.shape) > 2 else ref.shape
    if int(np.prod(shape)) == 1:
        return rows_of(ref, 0)
    if len(shape) == 1:
        shape = (*shape, 1)
    if len(shape) != 2 or not (0 < shape[0] <= rows and 0 < shape[1] <= columns):
        raise tensors.fault(ref, f"scales of {rows} rows and {columns} inputs")
    if shape[0] == rows:
        return rows_of(ref)
    size = -(-columns // shape[1])  # blocks are square
    if -(-rows // size) != shape[0]:
        raise tensors.fault(ref, f"scales of blocks of {size} rows and inputs")
    return rows_of(ref, size)


def group_of(tensors: Leaves, leaf: str, width: int, count: int) -> npt.NDArray[np.int64] | None:
    """Return the group of each input; None where they are equal and in order."""
    ref = tensors.shaped(leaf, ("I32", "I64"), (width,))
    found = ref.map().astype(np.int64)
    if (found < 0).any():  # compressed-tensors: -1 stands for no order
        return None
    if found.size and int(found.max()) >= count:
        raise tensors.fault(ref, f"groups below {count}, got {int(found.max())}")
    size = -(-width // count)
    return None if np.array_equal(found, np.arange(width) // size) else found
