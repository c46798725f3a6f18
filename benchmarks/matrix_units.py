"""What AMX's tiles gain: the same engine with and without them, by turns, on one thread.

Run: python benchmarks/matrix_units.py [--precisions bf16,int8-wo] [--tokens 128,512]

A Mamba and an MLP layer of the 9B's widths. Times are the thread's, the best of some rounds: on a
busy machine read ratios only.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.library.library import InstructionSet, best_isa
from nemotrt.engines.backends.native.library.machine_limits import measure_limits
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits

sys.path.insert(0, str(Path(__file__).parent / "cpu"))

import models

MODEL = "pair"
CONFIG = models.WIDE | {
    "hybrid_override_pattern": "M-",
    "num_hidden_layers": 2,
    "vocab_size": 4096,
}
SETS = (InstructionSet.AVX512, InstructionSet.AMX)


def step_s(engine: NativeEngine, tokens: int) -> float:
    """Return the CPU time of a prompt's chunk."""
    slot = engine.allocate()
    begin_s = time.process_time()
    engine.step([Feed(slot, [i % CONFIG["vocab_size"] for i in range(tokens)])])
    found_s = time.process_time() - begin_s
    engine.release(slot)
    return found_s


@click.command()
@click.option("--precisions", default="bf16,int8-wo", show_default=True)
@click.option("--tokens", default="1,8,32,128,512", show_default=True, help="Of a prompt's chunk.")
@click.option("--rounds", type=click.IntRange(1), default=8, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keeps checkpoint and engines.")
def main(precisions: str, tokens: str, rounds: int, folder: Path | None) -> None:
    """Print one JSON object a line."""
    if best_isa() is not InstructionSet.AMX:
        click.echo("this CPU and its system have no tiles: nothing to compare", err=True)
        return
    counts = [int(word) for word in tokens.split(",")]
    limits = Limits(1, max(counts), max(counts))
    models.CONFIGS[MODEL] = CONFIG
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        for name in precisions.split(","):
            target = place / name
            if not target.exists():
                spec = BuildSpec("native", precision=Precision(name), limits=limits)
                build_engine(models.checkpoint(MODEL, place), target, spec)
            engines = [NativeEngine(target, limits, 1, isa) for isa in SETS]
            peak = measure_limits(1, stream_bytes=1 << 24)
            for count in counts:
                times = [[step_s(engine, count) for engine in engines] for _ in range(rounds)]
                without_s, with_s = np.min(times, axis=0)
                case = {"precision": name, "tokens": count, "ms": round(1e3 * with_s, 2)}
                print(json.dumps(case | {"over_avx512": round(without_s / with_s, 2)}), flush=True)
            print(json.dumps({"float32_gop_per_s": round(peak.float_ops_per_s / 1e9)}), flush=True)
            for engine in engines:
                engine.close()


if __name__ == "__main__":
    main()
