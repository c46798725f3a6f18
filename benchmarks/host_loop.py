"""What the host pays for each token beside the model, at the real vocabulary.

Run: python benchmarks/host_loop.py [--batch 32] [--setting card] [--no-stack]

The engine computes nothing: its logits stand ready, random ones spread as a language model's. So
all that is measured is ours: choosing tokens, text, stop strings, grammars, bookkeeping. `ahead`
rows are of a device that chooses tokens itself, whose steps take what the planner predicts for a
GPU: `share_lost` is what the host makes it wait; nothing ran on a GPU. `stack` rows are what each
process costs under streams of requests, at the card's settings.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from serve_throughput import one_pair, summary

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.draws import Draws, open_draws
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.state.slots import Slots
from nemotrt.engines.runtime.state.state_pool import StatePool
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.planning.answers.options import DeploymentOptions
from nemotrt.profiles.runs.record.prediction import predict
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.processes.launcher import serve_engine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.ahead_device import AheadDevice
from support.real_size import write_checkpoint

HERE = Path(__file__).parent
BATCHES = (1, 8, 32, 128, 256)
CARD = {"temperature": 0.6, "top_p": 0.95}  # Source: model card
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "card": CARD,
    "top_k": {"temperature": 1.0, "top_k": 50},
    "penalties": CARD | {"repetition_penalty": 1.1, "frequency_penalty": 0.1},
    "logprobs": CARD | {"logprobs": 5},
    "stops": CARD | {"stop": tuple(f"never {i} said" for i in range(16))},
    "json_schema": CARD,
}
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "notes": {"type": "array", "items": {}}},
        "required": ["name", "notes"],
        "additionalProperties": False,
    }
)
AHEAD_SETTINGS = {"card", "stops", "json_schema"}  # others are the device's own work
PROMPT_TOKENS = 1000
GPUS = ("a10g", "a100", "h100")
CLAIM = Workload(isl=8192, osl=16384, concurrency=114, num_requests=228)


class IdleEngine(Slots):
    """The Engine protocol; every step's logits stand ready, a row of its own for each slot."""

    def __init__(self, limits: Limits, logits: np.ndarray) -> None:
        """Take the logits, at least a row for each slot."""
        super().__init__(limits, logits.shape[1], StatePool())
        self.logits = logits

    def step(self, feeds: Sequence[Feed]) -> Any:
        """Return a row for each feed."""
        return self.logits[: len(feeds)]

    def close(self) -> None:
        """Nothing to free."""


@contextmanager
def timed(target: Any, name: str) -> Iterator[list[float]]:
    """Collect the seconds that each call of a method takes."""
    method, seconds = getattr(target, name), []

    def call(*arguments: Any) -> Any:
        start_s = time.perf_counter()
        result = method(*arguments)
        seconds.append(time.perf_counter() - start_s)
        return result

    setattr(target, name, call)
    yield seconds
    delattr(target, name)


def scheduler_of(
    opened: OpenEngine, engine: Any, setting: str, num_tokens: int, draws: Draws | None = None
) -> Scheduler:
    """Return a scheduler whose slots are full of sequences that decode, past their first steps."""
    batch = engine.limits.max_batch_size
    scheduler = Scheduler(
        engine,
        opened.tokenizer,
        draws=draws,
        eos_ids=opened.eos_ids,
        max_num_tokens=batch * PROMPT_TOKENS,  # all prompts in one step
    )
    assert opened.tokenizer is not None
    grammars = GrammarCompiler(opened.tokenizer, engine.vocab_size, opened.end_ids)
    random = np.random.default_rng(1)
    for number in range(batch):
        params = SamplingParams(
            max_tokens=num_tokens + 40, ignore_eos=True, seed=number, **SETTINGS[setting]
        )
        guide = grammars.guide("json_schema", SCHEMA) if setting == "json_schema" else None
        prompt = tuple(random.integers(1000, engine.vocab_size, PROMPT_TOKENS).tolist())
        scheduler.submit(Request(str(number), prompt, params, guide))
    for _ in range(6):
        scheduler.step()
    assert len(scheduler.running) == batch
    return scheduler


def run_steps(scheduler: Scheduler, num_steps: int) -> dict[str, float]:
    """Return what so many steps cost."""
    start_s, start_cpu_s, num_tokens = time.perf_counter(), time.process_time(), 0
    for _ in range(num_steps):
        num_tokens += sum(len(update.tokens) for update in scheduler.step())
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    return {
        "tokens_per_s": round(num_tokens / wall_s),
        "core_us_per_token": round(1e6 * cpu_s / num_tokens, 1),
        "wall_us_per_token": round(1e6 * wall_s / num_tokens, 1),
        "step_ms": round(1e3 * wall_s / num_steps, 3),
    }


def bare(opened: OpenEngine, setting: str, batch: int, num_steps: int) -> dict[str, float]:
    """Return the microseconds per token of a scheduler that decodes `batch` sequences."""
    limits = Limits(batch, 2 * PROMPT_TOKENS, PROMPT_TOKENS)
    assert isinstance(opened.engine, IdleEngine)
    engine = IdleEngine(limits, opened.engine.logits)
    draws = open_draws(engine)
    scheduler = scheduler_of(opened, engine, setting, num_steps, draws)
    with timed(draws, "choose") as seconds:
        found = run_steps(scheduler, num_steps)
    num_tokens = num_steps * batch
    assert len(scheduler.running) > 0.8 * batch  # a JSON text may be whole before
    return found | {"choosing_us_per_token": round(1e6 * sum(seconds) / num_tokens, 1)}


def ahead(opened: OpenEngine, setting: str, gpu: str, batch: int, step_ms: float) -> dict[str, Any]:
    """Return what the host costs beside a device's steps, and what it makes the device wait."""
    num_steps = max(20, int(2000 / step_ms))
    limits = Limits(batch, 2 * PROMPT_TOKENS, PROMPT_TOKENS)
    random = np.random.default_rng(2)
    vocab_size = opened.engine.vocab_size
    tokens = random.integers(1000, vocab_size, 4096).tolist()
    device = AheadDevice(limits, vocab_size, step_ms / 1e3, tokens)
    scheduler = scheduler_of(opened, device, setting, num_steps)
    waited_s = device.waited_s
    found = run_steps(scheduler, num_steps)
    assert len(scheduler.running) > 0.8 * batch
    lost = (device.waited_s - waited_s) / (num_steps * step_ms / 1e3)
    share = found["core_us_per_token"] * batch / 1e3 / step_ms
    row = {"ahead": gpu, "predicted_step_ms": round(step_ms, 1), "batch": batch}
    row |= {"setting": setting, "host_core_us_per_token": found["core_us_per_token"]}
    return row | {"host_share_of_a_core": round(share, 3), "share_lost": round(lost, 4)}


def random_logits(num_rows: int, vocab_size: int) -> np.ndarray:
    """Return rows as a language model's: a broad bulk, and some that stand out."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((num_rows, vocab_size), np.float32) * np.float32(2.2)
    for row in logits:
        some = random.choice(vocab_size, 200, replace=False)
        row[some] += random.exponential(4, some.size).astype(np.float32)
    return logits


def predicted_step_ms() -> dict[str, tuple[int, float]]:
    """Return the batch and the planned milliseconds of a decode step of the 9B on each GPU."""
    found = {}
    for gpu in GPUS:
        plan = predict(DeploymentOptions("nemotron-nano-9b-v2", gpu), CLAIM)
        found[gpu] = (plan.batch_size, plan.decode_step_ms["total"])
    return found


def open_idle(folder: Path, **options: Any) -> OpenEngine:
    """Return the engine directory's tokenizer over an idle engine."""
    opened = open_engine(folder, OpenOptions(1), verify=False)
    limits = opened.manifest.engine_limits
    engine = IdleEngine(limits, random_logits(limits.max_batch_size, opened.engine.vocab_size))
    opened.engine.close()
    return replace(opened, engine=engine)


def stack(folder: Path, num_streams: int, rounds: int) -> dict[str, Any]:
    """Return the whole stack's rate and each process's share, over an idle engine."""
    with serve_engine(folder, "--engine-module", "host_loop_host") as server:
        opened = open_idle(folder)
        one_pair(opened, server, num_streams, 8, CARD)
        pairs = [one_pair(opened, server, num_streams, 100, CARD) for _ in range(rounds)]
    return {"streams": num_streams} | summary(pairs)


@click.command()
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=BATCHES)
@click.option("--setting", "settings", multiple=True, default=tuple(SETTINGS))
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option("--stack/--no-stack", "with_stack", default=True)
def main(
    batches: tuple[int, ...], settings: tuple[str, ...], rounds: int, with_stack: bool
) -> None:
    """Print one JSON object for each measurement."""
    paths = [str(HERE), str(HERE.parent / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    planned = predicted_step_ms()
    click.echo(json.dumps({"predicted_step_ms": planned, "load": os.getloadavg()[0]}))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "engine"
        checkpoint = write_checkpoint(Path(temporary) / "checkpoint")
        most = max(*batches, 128 if with_stack else 1)
        build_engine(checkpoint, folder, BuildSpec(limits=Limits(most, 2048, 256)))
        opened = open_idle(folder)
        for setting in settings:
            for batch in batches:
                num_steps = max(10, min(300, 2000 // batch))
                runs = [bare(opened, setting, batch, num_steps) for _ in range(rounds)]
                row: dict[str, Any] = {"setting": setting, "batch": batch}
                row |= {name: statistics.median(run[name] for run in runs) for name in runs[0]}
                click.echo(json.dumps(row))
        for gpu, (planned_batch, step_ms) in planned.items():
            for setting in sorted({*settings} & AHEAD_SETTINGS):
                click.echo(json.dumps(ahead(opened, setting, gpu, planned_batch, step_ms)))
        for num_streams in (32, 128) if with_stack else ():
            click.echo(json.dumps({"stack": stack(folder, num_streams, rounds)}))


if __name__ == "__main__":
    main()
