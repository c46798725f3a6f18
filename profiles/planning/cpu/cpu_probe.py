"""Times our CPU engine on the probe models; a process of its own, as engines are heavy.

`python -m nemotrt.profiles.planning.cpu.cpu_probe BACKEND PRECISION` prints one JSON
object: seconds of the fastest step by model and load. What a neighbour slows down is slower.

The probe's models are small, so that it takes seconds. A part of their 8-bit weights would still
be in the last-level cache at the next step, and a plan for a larger model would promise that; so
where memory's rate is asked for, the cache is filled with something else before each step.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import BuildJob, Target
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Engine, Feed, Limits
from nemotrt.engines.tiny.random_checkpoint import write_checkpoint
from nemotrt.profiles.planning.cpu.cpu_cache import last_level_cache_mib
from nemotrt.profiles.planning.cpu.probe_models import BATCH_SIZE, GEMM_ROWS, PROBE_MODELS

# Each load runs for this long, in these many rounds over all loads, so that a burst of a
# neighbour's work does not hit all runs of one.
MEASURE_S, NUM_ROUNDS = 0.15, 3
LOADS = {"one": (1, 1), "batch": (BATCH_SIZE, 1), "prompt": (1, GEMM_ROWS)}  # sequences, tokens
FROM_MEMORY = {"linears": ("one", "batch", "prompt"), "states": ("batch",)}
FROM_CACHE = {"cached": ("one",), "states": ("one",), "small": ("one", "batch")}
UNKNOWN_CACHE_MIB = 32.0
LIMITS = Limits(max_batch_size=BATCH_SIZE, max_seq_len=4096, chunk_tokens=GEMM_ROWS)


def open_probe(folder: Path, name: str, backend: str, precision: Precision) -> Engine:
    """Return the open engine of a probe model, built in `folder`."""
    checkpoint, target = folder / name, folder / f"{name}-engine"
    write_checkpoint(checkpoint, PROBE_MODELS[name])
    target.mkdir()
    engine = registry.find_cpu(backend)
    options = engine.options_type()
    what = Target(open_checkpoint(checkpoint), precision, None, None, None, options)
    engine.build(what, BuildJob(target, LIMITS))
    return engine.load(target, LIMITS, None)


def cache_filler() -> Callable[[], object]:
    """Return a function that reads twice what the last-level cache holds."""
    num_bytes = int(2 * (last_level_cache_mib() or UNKNOWN_CACHE_MIB) * 2**20)
    return np.ones(num_bytes // 8).sum  # ones: untouched zeros would all be one page


def _leave_cache() -> None:
    """Leave in the cache what the last step left there."""


def _turns(loads: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Return (model, load) one by one."""
    return [(name, load) for name, several in loads.items() for load in several]


def fastest_s(
    engine: Engine,
    slots: list[int],
    num_sequences: int,
    num_tokens: int,
    prepare: Callable[[], object],
) -> float:
    """Return the seconds of the fastest step of `num_tokens` new tokens for each sequence.

    `prepare` is called before each step, and is not timed. Slots stay allocated, since the first
    touch of a state's pages is no part of a step; full ones are replaced in `slots`.
    """
    fastest, end = float("inf"), time.perf_counter() + MEASURE_S
    while time.perf_counter() < end:
        for index, slot in enumerate(slots):
            if engine.held_tokens(slot) + num_tokens > LIMITS.max_seq_len:
                engine.release(slot)
                slots[index] = engine.allocate()
        feeds = [Feed(slot, list(range(num_tokens))) for slot in slots[:num_sequences]]
        prepare()
        start = time.perf_counter()
        engine.step(feeds)
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def measure(backend: str, precision: Precision) -> dict[str, dict[str, float]]:
    """Return seconds by model and load: `one`, `batch` of BATCH_SIZE, `prompt` of GEMM_ROWS."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        engines = {name: open_probe(folder, name, backend, precision) for name in PROBE_MODELS}
        fill_cache = cache_filler()
        turns = [(*turn, fill_cache) for turn in _turns(FROM_MEMORY)]
        turns += [(*turn, _leave_cache) for turn in _turns(FROM_CACHE)]
        found: dict[str, dict[str, float]] = {name: {} for name in engines}
        slots = {name: [e.allocate() for _ in range(BATCH_SIZE)] for name, e in engines.items()}
        for _ in range(NUM_ROUNDS):
            for name, load, prepare in turns:
                seconds = fastest_s(engines[name], slots[name], *LOADS[load], prepare)
                found[name][load] = min(found[name].get(load, seconds), seconds)
        for engine in engines.values():
            engine.close()
    return found


def main() -> None:
    """Print the timings."""
    backend, precision = sys.argv[1:]
    print(json.dumps(measure(backend, Precision(precision)), allow_nan=False))


if __name__ == "__main__":
    main()
