"""What a decode step costs, by cache capacity and by tokens held: it should follow the latter."""

import resource
import statistics
import tempfile
import time
from pathlib import Path

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS

CAPACITIES = (256, 4096, 32768)
HELD = (100, 1000)
BATCH = 8
CHUNK = 64
STEPS = 60


def engines(folder: Path, name: str) -> dict[int, OnnxRuntimeEngine]:
    """Return an engine for each capacity."""
    built = {}
    for capacity in CAPACITIES:
        limits = Limits(BATCH, capacity, CHUNK)
        target = folder / f"{name}-{capacity}"
        build_engine(TINY_MODELS[name], target, BuildSpec(precision=Precision.FP32, limits=limits))
        built[capacity] = OnnxRuntimeEngine(target, limits, num_threads=1)
    return built


def fill(engine: OnnxRuntimeEngine, held: int) -> list[int]:
    """Return BATCH slots that hold `held` tokens each."""
    slots = [engine.allocate() for _ in range(BATCH)]
    for start in range(0, held, CHUNK):
        tokens = [100 + i % 500 for i in range(start, min(start + CHUNK, held))]
        engine.step([Feed(slot, tokens) for slot in slots])
    return slots


def main() -> None:
    """Print a table for both tiny models; the capacities take turns, step by step."""
    print(f"{'model':12}{'held':>6}" + "".join(f"{f'capacity {c}':>18}" for c in CAPACITIES))
    with tempfile.TemporaryDirectory() as folder:
        for name in TINY_MODELS:
            built = engines(Path(folder), name)
            for held in HELD:
                fitting = {c: engine for c, engine in built.items() if c > held + STEPS}
                slots = {c: fill(engine, held) for c, engine in fitting.items()}
                seconds: dict[int, list[float]] = {c: [] for c in fitting}
                for _ in range(STEPS):
                    for capacity, engine in fitting.items():
                        begin = time.perf_counter()
                        engine.step([Feed(slot, [200]) for slot in slots[capacity]])
                        seconds[capacity].append(time.perf_counter() - begin)
                for capacity, engine in fitting.items():
                    for slot in slots[capacity]:
                        engine.release(slot)
                cells = [
                    f"{statistics.median(seconds[c]) * 1e3:.2f} ms" if c in seconds else "-"
                    for c in CAPACITIES
                ]
                print(f"{name:12}{held:>6}" + "".join(f"{cell:>18}" for cell in cells))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"median of {STEPS} decode steps, batch {BATCH}, 1 thread; peak resident {peak:.0f} MiB")


if __name__ == "__main__":
    main()
