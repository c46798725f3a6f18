"""Measures this CPU's float32 matrix products; run as a process with one BLAS thread each.

`python -m nemotrt.profiles.planning.cpu_probe` prints one JSON object. It is a process of its own
because BLAS reads its number of threads once, and its own threads wait for each other: on a busy
machine that measures the waiting. Here every CPU works on its own matrix.
"""

import json
import os
import threading
import time

import numpy as np

# Larger together than the last-level caches of common servers: the reads come from memory.
STREAM_BYTES = 512 * 2**20
# Within a last-level cache, beyond the private ones.
CACHED_BYTES = 8 * 2**20
NUM_COLUMNS = 1024
GEMM_ROWS = 8  # a decode step's batch
MEASURE_S = 0.8


def rate(total_bytes: int, num_rows: int) -> float:
    """Return the bytes of matrix that all CPUs together multiply by `num_rows` rows in a second.

    Each CPU reports its fastest pass while all are at work.
    """
    num_cpus = len(os.sched_getaffinity(0))
    rates = [0.0] * num_cpus
    start = threading.Barrier(num_cpus)

    def work(index: int) -> None:
        size = total_bytes // num_cpus // 4 // NUM_COLUMNS
        matrix = np.ones((NUM_COLUMNS, size), np.float32)
        rows = np.ones((num_rows, NUM_COLUMNS), np.float32)
        out = np.empty((num_rows, size), np.float32)
        np.matmul(rows, matrix, out=out)
        start.wait()
        end = time.perf_counter() + MEASURE_S
        while time.perf_counter() < end:
            before = time.perf_counter()
            np.matmul(rows, matrix, out=out)
            seconds = time.perf_counter() - before
            rates[index] = max(rates[index], matrix.nbytes / seconds)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(num_cpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def main() -> None:
    """Print the three rates."""
    streamed, cached = rate(STREAM_BYTES, 1), rate(CACHED_BYTES, 1)
    multiplied = rate(CACHED_BYTES, GEMM_ROWS)
    flops = 2 * GEMM_ROWS * multiplied / 4
    print(json.dumps({"stream": streamed, "cached": cached, "flops": flops}))


if __name__ == "__main__":
    main()
