"""Compares the planner's decode rate on this machine with that of our CPU engine.

Run: python benchmarks/planner_on_cpu.py [--backend onnxruntime] [--precision fp32]
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from safetensors.numpy import save_file

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.engine import Engine, Feed, Limits
from nemotrt.engines.hf_config import parse_model_config
from nemotrt.engines.opening import open_engine
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensor_names import expected_shapes
from nemotrt.engines.tiny_models import TINY_MODELS
from nemotrt.profiles.planning.calibration import profile_yaml
from nemotrt.profiles.planning.deployment import DeploymentOptions, deploy
from nemotrt.profiles.planning.roofline import Scenario
from nemotrt.profiles.planning.this_machine import measure_this_machine

# 263 M parameters in the proportions of Nano-9B-v2.
MID = {
    "model_type": "nemotron_h",
    "hybrid_override_pattern": "M-M-M-M*-M-M-M*-M-M-M-M-",
    "hidden_size": 1024,
    "intermediate_size": 3584,
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
PROMPT, NUM_STEPS = 32, 40
SLACK = 0.25


def write_random_checkpoint(folder: Path) -> None:
    """Write the mid model with random weights; decay and step biases as at initialization."""
    config = parse_model_config(MID)
    (folder / "config.json").write_text(json.dumps(MID))
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        if name.endswith(("norm.weight", "norm_f.weight", ".D")):
            tensors[name] = np.ones(shape, np.float32)
        elif name.endswith("A_log"):
            tensors[name] = np.log(rng.uniform(1, 16, shape)).astype(np.float32)
        elif name.endswith("dt_bias"):
            tensors[name] = np.full(shape, -4.0, np.float32)
        else:
            tensors[name] = (0.02 * rng.standard_normal(shape, np.float32)).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")


def decode_ms(engine: Engine, batch_size: int) -> tuple[float, float]:
    """Return the best and the median milliseconds of a decode step."""
    rng = np.random.default_rng(1)
    slots = [engine.allocate() for _ in range(batch_size)]
    for slot in slots:
        engine.step([Feed(slot, rng.integers(3, engine.vocab_size, PROMPT).tolist())])
    seconds = []
    for _ in range(NUM_STEPS):
        feeds = [Feed(slot, [int(rng.integers(3, engine.vocab_size))]) for slot in slots]
        start = time.perf_counter()
        engine.step(feeds)
        seconds.append(time.perf_counter() - start)
    for slot in slots:
        engine.release(slot)
    return 1e3 * min(seconds), 1e3 * statistics.median(seconds)


@click.command()
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
def main(backend: str, precision: str) -> None:
    """Print predicted and measured step times of the tiny and the mid model."""
    gpu = measure_this_machine()  # before any engine's threads exist
    sheet = gpu.datasheet
    click.echo(
        f"{sheet.bandwidth_gb_per_s} GB/s, {sheet.cache_bandwidth_gb_per_s} GB/s cached, "
        f"{sheet.tflops['fp32']} TFLOPS"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "mid"
        folder.mkdir()
        write_random_checkpoint(folder)
        for name, checkpoint in (("tiny", TINY_MODELS["tiny"]), ("mid", folder)):
            limits = Limits(max_batch_size=8, max_seq_len=128, chunk_tokens=64)
            target = Path(temporary) / f"{name}-engine"
            build_engine(checkpoint, target, BuildSpec(backend, None, Precision(precision), limits))
            engine = open_engine(target, verify=False).engine
            profile = Path(temporary) / "this-machine.yaml"
            profile.write_text(profile_yaml(gpu))
            deployment = deploy(
                DeploymentOptions(
                    str(checkpoint),
                    str(profile),
                    Precision(precision),
                    isl=PROMPT,
                    osl=NUM_STEPS,
                )
            )
            for batch_size in (1, 8):
                best, median = decode_ms(engine, batch_size)
                planned = deployment.serve(batch_size, batch_size, Scenario.BEST).step
                error = planned.total / best - 1
                mark = "" if abs(error) <= SLACK else f"  beyond {SLACK:.0%}"
                click.echo(
                    f"{name} batch {batch_size}: measured {best:.2f} ms (median {median:.2f}), "
                    f"planned {planned.total:.2f} ms, {error:+.0%}{mark}; "
                    f"weights {planned.weights:.2f} ssm {planned.ssm:.2f} "
                    f"overhead {planned.overhead:.2f}"
                )
            engine.close()


if __name__ == "__main__":
    main()
