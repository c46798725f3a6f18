"""The GPU for one case: what is allocated goes with it. Copies to and fro, and times."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.build.check.result.rows import Timing
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.errors import NemotrtError

Array = npt.NDArray[Any]
# What one measurement moves at most, and how often a launch is repeated: at 100 GB/s, less than
# any GPU that is taken here has, a measurement ends in 20 ms.
MEASURED_BYTES, MAX_REPEATS, MIN_REPEATS = 2**31, 100, 2


@contextmanager
def device(api: Any) -> Iterator[Cuda]:
    """Yield CUDA on device 0, and free all of it after the block."""
    cuda = Cuda(api)
    try:
        yield cuda
    except BaseException:
        with suppress(NemotrtError):  # after a failed launch no call works
            cuda.close()
        raise
    cuda.close()


def put(cuda: Cuda, array: Array) -> int:
    """Return where a copy of `array` is on the device."""
    pinned = cuda.host_array(array.shape, array.dtype)
    pinned[...] = array
    address = cuda.allocate(array.nbytes).address
    cuda.to_device(address, pinned)
    return address


def fetch(cuda: Cuda, address: int, like: Array) -> Array:
    """Return what is on the device, once all work is done."""
    pinned = cuda.host_array(like.shape, like.dtype)
    cuda.to_host(pinned, address)
    cuda.synchronize()
    return pinned.copy()


def timed(cuda: Cuda, enqueue: Callable[[], None], moved_bytes: int) -> Timing:
    """Return how long the work takes, and a copy of as many bytes; one graph, no host between."""
    own_us = _microseconds(cuda, enqueue, moved_bytes)
    return Timing(own_us, copy_us(cuda, moved_bytes), moved_bytes)


def copy_us(cuda: Cuda, moved_bytes: int) -> float:
    """Return the microseconds of a copy within the device that reads and writes so many bytes."""
    half = max(moved_bytes // 2, 1)
    source, target = (cuda.allocate(half).address for _ in range(2))
    return _microseconds(cuda, lambda: cuda.copy(target, source, half), moved_bytes)


def _microseconds(cuda: Cuda, enqueue: Callable[[], None], moved_bytes: int) -> float:
    """Return the microseconds of one of many repeats; the first round warms up."""
    repeats = min(MAX_REPEATS, max(MIN_REPEATS, MEASURED_BYTES // max(moved_bytes, 1)))

    def work() -> None:
        for _ in range(repeats):
            enqueue()

    graph = cuda.capture(work)
    took_s = 0.0
    for _ in range(2):
        start_s = time.perf_counter()
        cuda.launch(graph)
        cuda.synchronize()
        took_s = time.perf_counter() - start_s
    cuda.destroy_graph(graph)
    return took_s / repeats * 1e6


def bytes_that_differ(found: Array, expected: Array) -> float:
    """Return how many bytes differ."""
    sides = (np.ascontiguousarray(side).reshape(-1).view(np.uint8) for side in (found, expected))
    return float(np.count_nonzero(np.not_equal(*sides)))
