"""The largest magnitude of each input channel of a weight, read in chunks on all cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import Precision
from nemotrt.quantize.conversion import kernels
from nemotrt.quantize.conversion.convert import Rows, read_rows, split_rows
from nemotrt.quantize.conversion.layout import Linear

Floats = npt.NDArray[np.float32]
MAX_THREADS = 32  # of 2 MB each; disks are slower than so many


def column_amax(ref: TensorRef, progress: Callable[[int], None]) -> Floats:
    """Return [in] of the weight at `ref` [out, in]; `progress` is told of bytes read.

    A channel with NaN or infinity may give any value: the conversion names it.
    """
    chunks = split_rows(Linear(ref.name, ref, Precision.INT8_SQ.weights))
    result = np.zeros(ref.shape[1], np.float32)
    fd = os.open(ref.path, os.O_RDONLY)

    def amax_of(rows: Rows) -> Floats:
        amax = np.zeros(ref.shape[1], np.float32)
        kernels.amax_columns(read_rows(fd, rows), amax)
        return amax

    try:
        with ThreadPoolExecutor(num_threads()) as pool:
            for rows, amax in zip(chunks, pool.map(amax_of, chunks), strict=True):
                np.maximum(result, amax, out=result)
                progress((rows.end - rows.begin) * ref.num_bytes // max(1, ref.shape[0]))
    finally:
        os.close(fd)
    return result


def num_threads() -> int:
    """Return the cores that this process may use, at most MAX_THREADS: each holds a chunk."""
    return min(len(os.sched_getaffinity(0)), MAX_THREADS)
