"""What keeping states of prompts costs where no later prompt begins alike; and its memory.

Run: python benchmarks/prefix_cost.py [--model mid] [--batch 8]

One engine, two schedulers in turns, now one first and now the other: with kept states and without.
Every prompt is new, so that nothing hits. `decode_share` is the rate of the steps that feed no
prompt, `whole_share` that of all steps; medians of the pairs. States go to a limit that a few
prompts fill, so that old ones are dropped all the time.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.params import SamplingParams

sys.path.insert(0, str(Path(__file__).parent / "cpu"))

from models import checkpoint

VOCABULARY = 32768  # of the benchmark's models


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens per second of one turn, and what its cache held at most."""

    whole: float
    decode: float
    peak_bytes: int


def one_turn(opened: OpenEngine, load: dict[str, int], kept_bytes: int, seed: int) -> Rates:
    """Run a batch of new prompts to their ends."""
    rng = np.random.default_rng(seed)
    params = SamplingParams(max_tokens=load["osl"], ignore_eos=True, temperature=0)
    scheduler: Any = opened.scheduler(kept_bytes=kept_bytes)
    for number in range(load["batch"]):
        prompt = tuple(int(token) for token in rng.integers(3, VOCABULARY, load["isl"]))
        scheduler.submit(Request(str(number), prompt, params))
    start = time.perf_counter()
    tokens, decoded, decode_s, peak, started = 0, 0, 0.0, 0, set[str]()
    while not scheduler.is_idle:
        is_decode = len(started) == load["batch"]
        before = time.perf_counter()
        updates = scheduler.step()
        found = sum(len(update.tokens) for update in updates)
        if is_decode:
            decoded, decode_s = decoded + found, decode_s + time.perf_counter() - before
        started |= {update.request_id for update in updates if update.tokens}
        tokens += found
        if scheduler.kept is not None:
            peak = max(peak, scheduler.kept.bytes)
    return Rates(tokens / (time.perf_counter() - start), decoded / decode_s, peak)


@click.command()
@click.option("--model", type=click.Choice(["mid", "wide"]), default="mid")
@click.option("--batch", default=8)
@click.option("--isl", default=512)
@click.option("--osl", default=128)
@click.option("--pairs", default=5)
def main(model: str, batch: int, isl: int, osl: int, pairs: int) -> None:
    """Print the shares and the memory."""
    load = {"batch": batch, "isl": isl, "osl": osl}
    with tempfile.TemporaryDirectory() as name:
        folder, engine = checkpoint(model, Path(name) / "checkpoints"), Path(name) / "engine"
        limits = Limits(batch, isl + osl, min(512, isl))
        spec = BuildSpec("native", precision=Precision.INT8_WO, limits=limits)
        build_engine(folder, engine, spec)
        opened = open_engine(engine, OpenOptions(num_threads=os.cpu_count()))
        one_turn(opened, load, 0, 0)
        sizes = opened.engine.state_bytes  # type: ignore[attr-defined]
        most = 3 * sizes.of(isl)
        without, kept, memory = [], [], []
        for seed in range(1, pairs + 1):
            for limit in (0, most) if seed % 2 else (most, 0):
                before = psutil.Process().memory_info().rss
                found = one_turn(opened, load, limit, seed)
                (kept if limit else without).append(found)
                if limit:
                    memory.append(psutil.Process().memory_info().rss - before)
        opened.engine.close()
    pairs_of = list(zip(kept, without, strict=True))
    result = {
        "model": model,
        **load,
        "decode_share": round(statistics.median(a.decode / b.decode for a, b in pairs_of), 4),
        "whole_share": round(statistics.median(a.whole / b.whole for a, b in pairs_of), 4),
        "decode_tokens_per_s": round(statistics.median(one.decode for one in kept), 1),
        "limit_bytes": most,
        "peak_bytes": max(one.peak_bytes for one in kept),
        "most_rss_grown_bytes": max(memory),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
