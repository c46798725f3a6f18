"""The largest magnitudes of weights, read in chunks on all cores."""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import Precision
from nemotrt.quantize.conversion import kernels
from nemotrt.quantize.conversion.convert import chunks, read_rows, rows_amax
from nemotrt.quantize.conversion.layout import Linear
from nemotrt.quantize.recipes.selection import Selection, sharing_scale

T = TypeVar("T")
MAX_THREADS = 32  # of 2 MB each; disks are slower than so many


def column_amax(ref: TensorRef, progress: Callable[[int], None]) -> npt.NDArray[np.float32]:
    """Return [in] of the weight at `ref` [out, in]; `progress` is told of bytes read.

    A channel with NaN or infinity may give any value: the conversion names it.
    """
    result = np.zeros(ref.shape[1], np.float32)

    def amax_of(fd: int, rows: slice) -> npt.NDArray[np.float32]:
        amax = np.zeros(ref.shape[1], np.float32)
        kernels.amax_columns(read_rows(fd, ref, rows), amax)
        return amax

    for rows, amax in _by_chunk(ref, amax_of):
        np.maximum(result, amax, out=result)
        progress((rows.stop - rows.start) * ref.num_bytes // max(1, ref.shape[0]))
    return result


def tensor_amax(ref: TensorRef) -> np.float32:
    """Return the largest magnitude of the weight at `ref`."""
    linear = Linear(ref.name, ref, Precision.FP8.weights)
    found = _by_chunk(ref, lambda fd, rows: rows_amax(fd, linear, rows))
    return max((amax for _, amax in found), default=np.float32(0))


def common_amaxes(checkpoint: Checkpoint, selection: Selection) -> dict[str, np.float32]:
    """Return weight -> largest magnitude of those that have one scale per tensor with it.

    Raises:
        ArtefactError: a weight holds NaN or infinity.
    """
    groups = sharing_scale(checkpoint.config)
    names = [name for name in selection.weights if name in groups]
    own = {name: tensor_amax(checkpoint[name]) for name in names}
    return {name: max(own[other] for other in groups[name]) for name in names}


def has_one_scale(tensors: Mapping[str, TensorRef], weights: Collection[str]) -> bool:
    """Whether the stored scales of these weights are one per tensor each, and all the same."""
    names = [f"{name.removesuffix('.weight')}.weight_scale" for name in weights]
    found = {tensors[name].map().tobytes() for name in names if name in tensors}
    is_whole = all(name in tensors and math.prod(tensors[name].shape) == 1 for name in names)
    return is_whole and len(found) == 1


def num_threads() -> int:
    """Return the cores that this process may use, at most MAX_THREADS: each holds a chunk."""
    return min(len(os.sched_getaffinity(0)), MAX_THREADS)


def _by_chunk(ref: TensorRef, work: Callable[[int, slice], T]) -> Iterator[tuple[slice, T]]:
    """Yield the rows of each chunk, in order, with what `work` finds in them."""
    every = list(chunks(ref.shape))
    fd = os.open(ref.path, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(num_threads()) as pool:
            yield from zip(every, pool.map(partial(work, fd), every), strict=True)
    finally:
        os.close(fd)
