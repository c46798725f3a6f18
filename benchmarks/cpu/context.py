"""Decode time against held tokens, for the hybrid and for a model of its size that only attends."""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from models import checkpoint

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits

HELD = (1024, 2048, 4096, 8192, 16384, 32000)
LIMITS = Limits(max_batch_size=1, max_seq_len=32768, chunk_tokens=128)
MODELS = {"mid": "hybrid", "dense": "dense twin"}
NUM_STEPS, NUM_ROUNDS = 4, 4


@dataclass(frozen=True, slots=True)
class ContextTime:
    """The time of one decode step of one sequence."""

    model: str
    held_tokens: int
    best_ms: float
    median_ms: float


def measure_context(folder: Path, num_threads: int) -> list[ContextTime]:
    """Return the times; both models take turns at each length."""
    engines = {}
    for name, label in MODELS.items():
        target = folder / f"{name}-context"
        if not target.exists():
            spec = BuildSpec("native", precision=Precision.INT8_WO, limits=LIMITS)
            build_engine(checkpoint(name, folder), target, spec)
        engines[label] = NativeEngine(target, LIMITS, num_threads)
        engines[label].allocate()
        _fill(engines[label])
    found = []
    for held in HELD:
        seconds: dict[str, list[float]] = {label: [] for label in engines}
        for _ in range(NUM_ROUNDS):
            for label, engine in engines.items():
                engine.held[0] = held
                for _ in range(NUM_STEPS):
                    start = time.perf_counter()
                    engine.step([Feed(0, [7])])
                    seconds[label].append(time.perf_counter() - start)
        for label, times in seconds.items():
            row = ContextTime(label, held, 1e3 * min(times), 1e3 * statistics.median(times))
            print(f"{label}: {held} tokens, {row.best_ms:.2f} ms", file=sys.stderr)
            found.append(row)
    for engine in engines.values():
        engine.close()
    return found


def _fill(engine: NativeEngine) -> None:
    """Write a cache of the full length: feeding as many tokens would take minutes.

    Time does not depend on the values, but on the pages being there.
    """
    rng = np.random.default_rng(0)
    for state in engine._states.buffers:
        state.array[:] = rng.standard_normal(state.array.shape[1:], np.float32) * 0.1
