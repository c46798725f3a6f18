"""What this machine can do at most: bandwidth and arithmetic, measured by the compiled step."""

import ctypes
import dataclasses
import os
from dataclasses import dataclass

from nemotrt.engines.backends.native.library.library import InstructionSet, load_library
from nemotrt.errors import EnvironmentUnfitError

READ, UPDATE, FLOAT, INT16 = range(4)  # `Probe` in step/program.h
STREAM_BYTES = 256 << 20  # beyond any cache of a desktop, and most of a server's
MIN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """Rates of all threads together, the best of 0.3 s each: the roofline of a step."""

    num_threads: int
    read_bytes_per_s: float
    update_bytes_per_s: float  # read and written in place, both counted
    float_ops_per_s: float  # float32 multiply-adds in registers, two operations each
    int16_ops_per_s: float  # int16 multiply-adds in registers, two operations each

    def best_of(self, other: "MachineLimits") -> "MachineLimits":
        """Return the larger of each rate: what else runs here can only lower one."""
        ours, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return MachineLimits(self.num_threads, *map(max, ours[1:], theirs[1:]))


def measure_limits(
    num_threads: int | None = None, stream_bytes: int = STREAM_BYTES
) -> MachineLimits:
    """Return the limits; memory is read over `stream_bytes`, so caches count if those fit them.

    Raises:
        EnvironmentUnfitError: there is no compiled step, or memory ran out.
    """
    threads = num_threads or len(os.sched_getaffinity(0))
    library = load_library()
    library.nemotrt_probe.restype = ctypes.c_double
    library.nemotrt_probe.argtypes = (
        ctypes.c_int32,
        ctypes.c_int64,
        ctypes.c_int32,
        ctypes.c_int32,
    )
    size, isa = max(stream_bytes, MIN_BYTES), InstructionSet.AUTO
    rates = [
        float(library.nemotrt_probe(what, size if what <= UPDATE else MIN_BYTES, threads, isa))
        for what in (READ, UPDATE, FLOAT, INT16)
    ]
    if not all(rates):
        raise EnvironmentUnfitError(f"the machine's limits can't be measured over {size} bytes.")
    return MachineLimits(threads, *rates)
