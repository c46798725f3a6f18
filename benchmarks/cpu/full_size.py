"""The whole 9B as an int8-wo engine of random weights: built, loaded, generating, and served.

Needs 20 GB of disk and about 11 GiB of memory. `python benchmarks/cpu/full_size.py [--folder F]`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from child import resident_bytes
from full_size_served import compare
from models import FULL

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.program.program import read_program
from nemotrt.engines.checkpoint.stored.safetensors_file import header_bytes
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Engine, Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.real_size import tokenizer_file

LIMITS = Limits(max_batch_size=8, max_seq_len=4096, chunk_tokens=128)
POOL = 1 << 24  # random codes, repeated: drawing 9e9 takes long, and time does not depend on them
GB, MIB = 1e9, 2**20


def is_linear(name: str) -> bool:
    """Whether a tensor is a linear's weight, which the checkpoint stores as int8."""
    return name.endswith("proj.weight") or name == "lm_head.weight"


def tensors(folder: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield each tensor's name, safetensors type and shape."""
    for name, shape in expected_shapes(read_model_config(folder)).items():
        if is_linear(name):
            yield name, "I8", shape
            yield f"{name}_scale", "F32", shape[:1]
        else:
            yield name, "BF16", shape


def write_checkpoint(folder: Path) -> None:
    """Write an int8 checkpoint (W8A16) with random codes; scales keep activations near 1."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(FULL))
    shutil.copy(tokenizer_file(), folder / "tokenizer.json")
    shutil.copy(TINY_MODELS["tiny"] / "tokenizer_config.json", folder)
    config = {"quantization": {"quant_algo": "W8A16", "exclude_modules": []}}
    (folder / "hf_quant_config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    pool = rng.integers(-127, 128, POOL, np.int8)
    fan_in = {f"{name}_scale": shape[1] for name, kind, shape in tensors(folder) if kind == "I8"}
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header_bytes(tensors(folder)))
        for name, kind, shape in tensors(folder):
            count = int(np.prod(shape))
            if kind == "I8":
                for start in range(0, count, POOL):
                    file.write(pool[: count - start].data)
            elif kind == "F32":
                file.write(np.full(count, fan_in[name] ** -0.5 / 73, np.float32).data)
            elif "embeddings" in name:
                values = (pool[:POOL] / np.float32(73)).astype(ml_dtypes.bfloat16)
                for start in range(0, count, POOL):
                    file.write(values[: count - start].tobytes())
            else:
                file.write(np.ones(count, ml_dtypes.bfloat16).tobytes())


def decode_rates(engine: Engine, batch: int, num_steps: int) -> tuple[float, float]:
    """Return the tokens per second of decode steps: of the fastest, and of the median."""
    rng = np.random.default_rng(1)
    slots = [engine.allocate() for _ in range(batch)]
    for slot in slots:
        engine.step([Feed(slot, rng.integers(3, engine.vocab_size, 16).tolist())])
    seconds = []
    for _ in range(num_steps):
        start = time.perf_counter()
        engine.step([Feed(slot, [int(rng.integers(3, engine.vocab_size))]) for slot in slots])
        seconds.append(time.perf_counter() - start)
    for slot in slots:
        engine.release(slot)
    return batch / min(seconds), batch / float(np.median(seconds))


def run(folder: Path) -> None:
    """Open the engine and print what it costs and how fast it is."""
    start = time.perf_counter()
    opened = open_engine(folder, verify=False)
    print(f"opened in {time.perf_counter() - start:.2f} s, without checking the files' digests")
    engine = opened.engine
    weights = (folder / "weights.bin").stat().st_size
    state = sum(
        item.num_elements * 4 for item in read_program(folder).states if item.name[1] != "_"
    )
    rng = np.random.default_rng(0)
    prompt = rng.integers(3, engine.vocab_size, 128).tolist()
    slot = engine.allocate()
    for label in ("first", "second"):
        start = time.perf_counter()
        logits = engine.step([Feed(slot, prompt)])
        print(f"{label} prompt of 128 tokens: {128 / (time.perf_counter() - start):.1f} tokens/s")
    assert np.isfinite(logits).all()
    engine.release(slot)
    for batch in (1, 8):
        best, median = decode_rates(engine, batch, 8)
        print(f"decode, batch {batch}: {best:.2f} tokens/s at best, {median:.2f} median")
    peak = resident_bytes("VmHWM")
    planned = 8 * state
    print(
        f"peak resident {peak / GB:.3f} GB = weights {weights / GB:.3f} + state of 8 sequences "
        f"{planned / GB:.3f} + {(peak - weights - planned) / MIB:.0f} MiB (KV cache and all else)"
    )
    anonymous, mapped = resident_bytes("RssAnon"), resident_bytes("RssFile")
    print(f"anonymous {anonymous / GB:.3f} GB, file {mapped / GB:.3f} GB")


def main() -> None:
    """Write, build, and run in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="Where to work.  [default: a temporary one]")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return run(options.run)
    if options.decode:
        engine = open_engine(options.decode, verify=False).engine
        return print(decode_rates(engine, LIMITS.max_batch_size, 40)[1])
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        start = time.perf_counter()
        write_checkpoint(folder / "checkpoint")
        size = (folder / "checkpoint" / "model.safetensors").stat().st_size
        print(f"checkpoint: {size / GB:.2f} GB, {time.perf_counter() - start:.0f} s", flush=True)
        start = time.perf_counter()
        build_engine(folder / "checkpoint", folder / "engine", BuildSpec("native", limits=LIMITS))
        peak = resident_bytes("RssAnon") / MIB
        print(
            f"build: {time.perf_counter() - start:.0f} s, anonymous memory after it {peak:.0f} MiB",
            flush=True,
        )
        (folder / "checkpoint" / "model.safetensors").unlink()
        command = [sys.executable, __file__, "--run", str(folder / "engine")]
        subprocess.run(command, check=True)
        compare(folder / "engine")


if __name__ == "__main__":
    main()
