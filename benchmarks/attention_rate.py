"""How near attention comes to this CPU's float32 rate, and what long prompts cost a token.

Run: python benchmarks/attention_rate.py [--models mid,dense,wide] [--held 8000,32000]

One sequence, int8 weights. Each case is a prompt chunk, or a decode step, behind tokens that are
only said to be held: the caches are filled with random numbers, as time does not depend on them.
The best of some steps counts, beside multiply-adds in registers as measured in the same run. The
last lines are whole prompts: the time of a token of a long one over that of a short one.
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
from nemotrt.engines.backends.native.library.machine_limits import measure_limits
from nemotrt.engines.backends.native.program.options import KV_FORMATS, NativeOptions, StateFormat
from nemotrt.engines.backends.native.program.program import OperationKind
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits

sys.path.insert(0, str(Path(__file__).parent / "cpu"))

from models import checkpoint

CHUNK_TOKENS = 512
VOCABULARY = 32768


def open_filled(model: str, kv_cache: StateFormat, folder: Path, limits: Limits) -> NativeEngine:
    """Return an engine whose one slot has random numbers wherever it has state."""
    options = NativeOptions(kv_cache=kv_cache)
    target = folder / f"{model}-{kv_cache}-{limits.max_seq_len}"
    if not target.exists():
        spec = BuildSpec("native", precision=Precision.INT8_WO, limits=limits, options=options)
        build_engine(checkpoint(model, folder), target, spec)
    engine = NativeEngine(target, limits)
    engine.allocate()
    pool = np.random.default_rng(0).standard_normal(1 << 20, np.float32) * np.float32(0.1)
    for state in engine._states.buffers:
        flat = state.array.reshape(-1)
        if flat.dtype == np.float32:
            flat[:] = np.resize(pool, flat.size)
        else:
            flat[:] = 0
    return engine


def rate(engine: NativeEngine, held: int, tokens: int, steps: int) -> dict[str, float]:
    """Return the best time of a step and of its attention, and attention's operations a second."""
    kinds = np.array([operation.kind is OperationKind.ATTENTION for operation in engine.operations])
    feed = [i % VOCABULARY for i in range(tokens)]
    best_s, attention_s = np.inf, np.inf
    for _ in range(steps):
        engine.held[0], engine.seconds[:] = held, 0
        begin_s = time.perf_counter()
        engine.step([Feed(0, feed)])
        best_s = min(best_s, time.perf_counter() - begin_s)
        attention_s = min(attention_s, engine.seconds[kinds].sum())
    widths = (op.sizes[0] * op.sizes[2] for op in engine.operations if op.kind == "attention")
    # a multiply-add of scores and one of values, for each key that a token sees
    operations = 4 * sum(widths) * sum(held + i + 1 for i in range(tokens))
    return {
        "step_ms": round(1e3 * best_s, 2),
        "attention_ms": round(1e3 * attention_s, 2),
        "gflop_per_s": round(operations / attention_s / 1e9, 1),
    }


def prompt_s(engine: NativeEngine, tokens: int) -> float:
    """Return the time of a whole prompt, for each of its tokens."""
    engine.release(0)
    engine.allocate()
    begin_s = time.perf_counter()
    for first in range(0, tokens, CHUNK_TOKENS):
        count = min(CHUNK_TOKENS, tokens - first)
        engine.step([Feed(0, [i % VOCABULARY for i in range(count)])])
    return (time.perf_counter() - begin_s) / tokens


@click.command()
@click.option("--models", default="mid,dense,wide", show_default=True)
@click.option("--held", default="8000,32000", show_default=True, help="Tokens before the chunk.")
@click.option("--tokens", default="512,1", show_default=True, help="New ones in a step.")
@click.option(
    "--kv-cache", type=click.Choice([str(kind) for kind in KV_FORMATS]), default="float32"
)
@click.option("--steps", type=click.IntRange(1), default=3, show_default=True)
@click.option("--prompts", default="1024,32000", show_default=True, help="Whole ones; '' for none.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keeps checkpoints and engines.")
def main(
    models: str,
    held: str,
    tokens: str,
    kv_cache: str,
    steps: int,
    prompts: str,
    folder: Path | None,
) -> None:
    """Print one JSON object a line."""
    lengths = [int(word) for word in prompts.split(",") if word]
    held_tokens, new_tokens = ([int(word) for word in words.split(",")] for words in (held, tokens))
    longest = max([*lengths, max(held_tokens) + max(new_tokens)])
    limits = Limits(1, longest, CHUNK_TOKENS)
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        for model in models.split(","):
            engine = open_filled(model, StateFormat(kv_cache), place, limits)
            for count in held_tokens:
                for new in new_tokens:
                    peak = measure_limits(stream_bytes=1 << 24).float_ops_per_s
                    row = rate(engine, count, new, steps if new > 1 else 8 * steps)
                    share = {"share": round(1e9 * row["gflop_per_s"] / peak, 3)}
                    case = {"model": model, "kv_cache": kv_cache, "held": count, "tokens": new}
                    click.echo(json.dumps(case | row | share))
            times = {length: prompt_s(engine, length) for length in lengths}
            for length, token_s in times.items():
                ratio = token_s / times[lengths[0]]
                case = {"model": model, "prompt": length, "ms_a_token": round(1e3 * token_s, 3)}
                click.echo(json.dumps(case | {"over_the_first": round(ratio, 2)}))
            engine.close()


if __name__ == "__main__":
    main()
