"""Compares the planner's decode rate on this machine with that of our CPU engines.

Run: python benchmarks/planner_on_cpu.py [--backend native] [--precision int8-wo]

Both sides are measured on the same machine, in turns, and the fastest of each counts: neighbours
slow both. The planner has only the probe's models to go by, not these.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.engine import Engine, Feed, Limits
from nemotrt.engines.opening import open_engine
from nemotrt.engines.precision import Precision
from nemotrt.engines.tiny_models import TINY_MODELS
from nemotrt.profiles.miniature.random_checkpoint import write_checkpoint
from nemotrt.profiles.planning.calibration import profile_yaml
from nemotrt.profiles.planning.deployment import DeploymentOptions, deploy
from nemotrt.profiles.planning.known_models import load_model
from nemotrt.profiles.planning.roofline import Scenario
from nemotrt.profiles.planning.this_machine import CPU_ENGINES, measure_this_machine
from nemotrt.profiles.planning.weights import num_parameters

# 300 million parameters in the proportions of Nano-9B-v2.
MID = {
    "model_type": "nemotron_h",
    "hybrid_override_pattern": "M-M-M-M*-M-M-M*-M-M-M-M-",
    "hidden_size": 1152,
    "intermediate_size": 3840,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "mamba_num_heads": 32,
    "mamba_head_dim": 80,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "chunk_size": 128,
    "vocab_size": 32768,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}
PROMPT, NUM_STEPS, NUM_ROUNDS = 32, 40, 3
BATCH_SIZES = (1, 8)
LIMITS = Limits(max_batch_size=8, max_seq_len=512, chunk_tokens=64)
SLACK = 0.25


def prompted(engine: Engine) -> list[int]:
    """Return slots that hold a prompt, as many as the largest batch."""
    rng = np.random.default_rng(0)
    slots = [engine.allocate() for _ in range(max(BATCH_SIZES))]
    for slot in slots:
        engine.step([Feed(slot, rng.integers(3, engine.vocab_size, PROMPT).tolist())])
    return slots


def decode_ms(engine: Engine, slots: Sequence[int]) -> list[float]:
    """Return the milliseconds of decode steps."""
    rng = np.random.default_rng(1)
    times = []
    for _ in range(NUM_STEPS):
        feeds = [Feed(slot, [int(rng.integers(3, engine.vocab_size))]) for slot in slots]
        start = time.perf_counter()
        engine.step(feeds)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def compare(folder: Path, checkpoint: Path, backend: str, precision: Precision) -> Iterator[str]:
    """Yield a line a batch size: measured, planned, and how far the plan is off."""
    target = folder / f"{checkpoint.name}-{backend}-{precision}"
    build_engine(checkpoint, target, BuildSpec(backend, None, precision, LIMITS))
    engine = open_engine(target, verify=False).engine
    measured: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    planned: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    profile = folder / "this-machine.yaml"
    slots = prompted(engine)
    for _ in range(NUM_ROUNDS):
        for size in BATCH_SIZES:
            measured[size] += decode_ms(engine, slots[:size])
        profile.write_text(profile_yaml(measure_this_machine(backend, precision)))
        options = DeploymentOptions(str(checkpoint), str(profile), precision, backend)
        deployment = deploy(options.at(isl=PROMPT, osl=NUM_STEPS))
        for size in BATCH_SIZES:
            planned[size].append(deployment.serve(size, size, Scenario.BEST).step.total)
    engine.close()
    for size in BATCH_SIZES:
        best, plan = min(measured[size]), min(planned[size])
        error = best / plan - 1  # of the rate
        mark = "" if abs(error) <= SLACK else f"  beyond {SLACK:.0%}"
        median = statistics.median(measured[size])
        yield (
            f"  batch {size}: measured {size * 1e3 / best:.1f} tokens/s "
            f"(step {best:.2f} ms, median {median:.2f}), "
            f"planned {size * 1e3 / plan:.1f} ({plan:.2f} ms), {error:+.0%}{mark}"
        )


@click.command()
@click.option("--backend", type=click.Choice(CPU_ENGINES), multiple=True, default=CPU_ENGINES)
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
