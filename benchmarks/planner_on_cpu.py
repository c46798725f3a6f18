"""Compares the planner's decode rate on this machine with that of our CPU engines.

Run: python benchmarks/planner_on_cpu.py [--backend native] [--precision int8-wo]

A shared machine's memory bandwidth may double and halve within minutes. So each round measures the
engine, probes, and measures the engine again; the median of the rounds' errors counts. Of both the
fastest step in as much time, and over as long, is taken: the probe is likely to meet the memory's
best moment too. The planner has only the probe's models to go by, not these.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.registry import cpu_names
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Engine, Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS, hybrid_config
from nemotrt.engines.tiny.random_checkpoint import write_checkpoint
from nemotrt.profiles.hardware.gpu_profile import profile_yaml
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.cpu.cpu_probe import MEASURE_S
from nemotrt.profiles.planning.cpu.cpu_probe import NUM_ROUNDS as NUM_PROBE_ROUNDS
from nemotrt.profiles.planning.cpu.this_machine import measure_this_machine
from nemotrt.profiles.planning.memory.weights import num_parameters
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.planning.time.roofline import Scenario

# 300 million parameters in the proportions of Nano-9B-v2.
MID = hybrid_config(
    "M-M-M-M*-M-M-M*-M-M-M-M-",
    hidden_size=1152,
    intermediate_size=3840,
    num_attention_heads=8,
    num_key_value_heads=2,
    mamba_num_heads=32,
    vocab_size=32768,
    max_position_embeddings=4096,
)
PROMPT, NUM_STEPS, NUM_ROUNDS = 32, 30, 5
BATCH_SIZES = (1, 8)
LIMITS = Limits(max_batch_size=8, max_seq_len=1024, chunk_tokens=64)
SLACK = 0.25


@dataclass(frozen=True, slots=True)
class Round:
    """A decode step measured before and after the probe, and planned from it."""

    measured_ms: float
    planned_ms: float

    @property
    def error(self) -> float:
        """Planned rate over measured rate, less 1."""
        return self.measured_ms / self.planned_ms - 1


def decode_ms(engine: Engine, num_sequences: int) -> float:
    """Return the milliseconds of the fastest decode step in some time, as the probe counts too."""
    rng = np.random.default_rng(1)
    fastest_s, end = float("inf"), time.perf_counter() + MEASURE_S * NUM_PROBE_ROUNDS
    while time.perf_counter() < end:
        slots = [engine.allocate() for _ in range(num_sequences)]
        for slot in slots:
            engine.step([Feed(slot, rng.integers(3, engine.vocab_size, PROMPT).tolist())])
        for _ in range(NUM_STEPS):
            feeds = [Feed(slot, [int(rng.integers(3, engine.vocab_size))]) for slot in slots]
            start = time.perf_counter()
            engine.step(feeds)
            fastest_s = min(fastest_s, time.perf_counter() - start)
        for slot in slots:
            engine.release(slot)
    return 1e3 * fastest_s


def compare(folder: Path, checkpoint: Path, backend: str, precision: Precision) -> Iterator[str]:
    """Yield a line a batch size: measured, planned, and how far the plan is off."""
    target = folder / f"{checkpoint.name}-{backend}-{precision}"
    build_engine(checkpoint, target, BuildSpec(backend, None, precision, LIMITS))
    engine = open_engine(target, verify=False).engine
    profile = folder / "this-machine.yaml"
    rounds: list[dict[int, Round]] = []
    for _ in range(NUM_ROUNDS):
        before = {size: decode_ms(engine, size) for size in BATCH_SIZES}
        profile.write_text(profile_yaml(measure_this_machine(backend, precision)))
        after = {size: decode_ms(engine, size) for size in BATCH_SIZES}
        options = DeploymentOptions(str(checkpoint), str(profile), precision, engine=backend)
        deployment = deploy(options.at(isl=PROMPT, osl=NUM_STEPS))
        planned = {s: deployment.steady_state(s, s, Scenario.BEST).step.total for s in BATCH_SIZES}
        rounds.append({s: Round(min(before[s], after[s]), planned[s]) for s in BATCH_SIZES})
    engine.close()
    for size in BATCH_SIZES:
        same = [each[size] for each in rounds]
        errors = [each.error for each in same]
        error = statistics.median(errors)
        mark = "" if abs(error) <= SLACK else f"  beyond {SLACK:.0%}"
        steps = [each.measured_ms for each in same]
        yield (
            f"  batch {size}: step measured {min(steps):.2f} .. {max(steps):.2f} ms, planned rate "
            f"off by {error:+.0%} ({min(errors):+.0%} .. {max(errors):+.0%}){mark}"
        )


@click.command()
@click.option("--backend", type=click.Choice(cpu_names()), multiple=True, default=cpu_names())
@click.option("--precision", multiple=True, default=("fp32", "int8-wo"))
def main(backend: tuple[str, ...], precision: tuple[str, ...]) -> None:
    """Print predicted and measured decode rates of the tiny and the mid model."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoint(folder / "mid", MID)
        for checkpoint in (TINY_MODELS["tiny"], folder / "mid"):
            millions = num_parameters(load_model(str(checkpoint))) / 1e6
            for one in backend:
                for name in precision:
                    click.echo(f"{millions:.1f} million weights, {one}, {name}")
                    for line in compare(folder, checkpoint, one, Precision(name)):
                        click.echo(line)


if __name__ == "__main__":
    main()
