"""The two CPU backends side by side, interleaved: decode by batch, and prefill.

The tiny model is the shipped one; `mid` has random weights and the shape of a small Nemotron-H.
Quote the ratios: both engines are timed in turn, step by step, so what else the machine does
touches both alike.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.engine import Engine, Feed, Limits
from nemotrt.engines.hf_config import read_model_config
from nemotrt.engines.native.engine import NativeEngine
from nemotrt.engines.onnxruntime import OnnxRuntimeEngine
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensor_names import expected_shapes
from nemotrt.engines.tiny_models import TINY_MODELS

BATCHES = (1, 8, 32)
PREFILL_TOKENS = 128
CONTEXT_TOKENS = 32
SETTLE_S = 0.005  # ONNX Runtime's threads spin on after a run, on the cores of the next one
LIMITS = Limits(max_batch_size=max(BATCHES), max_seq_len=1024, chunk_tokens=PREFILL_TOKENS)
ENGINES = {"onnxruntime": OnnxRuntimeEngine, "native": NativeEngine}
MID = {
    "model_type": "nemotron_h",
    "architectures": ["NemotronHForCausalLM"],
    "hybrid_override_pattern": "M-M-M-M*-M-M-M*-M-M-M-M-",
    "num_hidden_layers": 24,
    "vocab_size": 32768,
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
    "layer_norm_epsilon": 1e-5,
    "mlp_hidden_act": "relu2",
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}


@dataclass
class Case:
    """One measurement: the seconds of each engine's calls, taken in turn."""

    tokens: int  # of one call
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ENGINES})


def random_checkpoint(folder: Path) -> Path:
    """Write the `mid` model with random bfloat16 weights and return its folder."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MID))
    rng = np.random.default_rng(0)
    header, parts, offset = {}, [], 0
    for name, shape in expected_shapes(read_model_config(folder)).items():
        fan_in = shape[-1] if len(shape) > 1 else 1
        values = rng.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)
        data = np.ones_like(values) if "norm" in name else values
        parts.append(data.astype(ml_dtypes.bfloat16).tobytes())
        span = [offset, offset + len(parts[-1])]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(parts)
    return folder


def feed_all(engine: Engine, slots: list[int], count: int) -> float:
    """Feed every slot `count` tokens and return the seconds."""
    tokens = [7 + 3 * i for i in range(count)]
    feeds = [Feed(slot, tokens) for slot in slots]
    time.sleep(SETTLE_S)
    start = time.perf_counter()
    engine.step(feeds)
    return time.perf_counter() - start


def measure(engines: dict[str, Engine], rounds: int) -> dict[str, Case]:
    """Return the cases; in each round every engine runs once, in turn."""
    cases = {}
    for batch in BATCHES:
        slots = {name: [e.allocate() for _ in range(batch)] for name, e in engines.items()}
        for name, engine in engines.items():
            feed_all(engine, slots[name], CONTEXT_TOKENS)
            feed_all(engine, slots[name], 1)
        case = cases[f"decode, batch {batch}"] = Case(batch)
        for _ in range(rounds):
            for name, engine in engines.items():
                case.seconds[name].append(feed_all(engine, slots[name], 1))
        for name, engine in engines.items():
            for slot in slots[name]:
                engine.release(slot)
    case = cases[f"prefill, {PREFILL_TOKENS} tokens"] = Case(PREFILL_TOKENS)
    for _ in range(max(rounds // 3, 3)):
        for name, engine in engines.items():
            slot = engine.allocate()
            case.seconds[name].append(feed_all(engine, [slot], PREFILL_TOKENS))
            engine.release(slot)
    return cases


def report(model: str, precision: str, cases: dict[str, Case]) -> None:
    """Print tokens a second (best and median of the calls) and the ratio of the medians."""
    for label, case in cases.items():
        rates = {
            name: (case.tokens / min(seconds), case.tokens / statistics.median(seconds))
            for name, seconds in case.seconds.items()
        }
        best, median = (rates["native"][i] / rates["onnxruntime"][i] for i in (0, 1))
        cells = "".join(f"{a:>10.0f} ({b:>6.0f})" for a, b in rates.values())
        print(f"{model:6}{precision:9}{label:21}{cells}{best:>8.2f} ({median:.2f})", flush=True)


def main() -> None:
    """Build both engines of each model and precision, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="tiny,mid")
    parser.add_argument("--precisions", default="int8-wo,bf16,fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"tokens/s, best (median); {options.threads} threads; held: {CONTEXT_TOKENS}+ tokens")
    columns = "".join(f"{name:>19}" for name in (*ENGINES, "native/onnxruntime"))
    print(f"{'model':6}{'weights':9}{'':21}{columns}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in options.models.split(","):
            source = TINY_MODELS["tiny"] if model == "tiny" else random_checkpoint(folder / model)
            for precision in map(Precision, options.precisions.split(",")):
                engines: dict[str, Engine] = {}
                for backend, kind in ENGINES.items():
                    target = folder / f"{model}-{precision}-{backend}"
                    spec = BuildSpec(backend, precision=precision, limits=LIMITS)
                    build_engine(source, target, spec)
                    engines[backend] = kind(target, LIMITS, num_threads=options.threads)
                report(model, precision, measure(engines, options.rounds))
                for engine in engines.values():
                    engine.close()


if __name__ == "__main__":
    main()
