"""A whole model as an engine of random weights: built, loaded, generating, and served.

The 9B in int8-wo needs 20 GB of disk and about 11 GiB of memory; `--model 30b-a3b`, the MoE hybrid
in int4-wo, 36 GB and 20 GiB. `python benchmarks/cpu/full_size.py [--model M] [--folder F]`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from child import resident_bytes
from full_size_checkpoint import MODELS, write_checkpoint
from full_size_served import compare

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.program.program import read_program
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Engine, Feed, Limits

LIMITS = Limits(max_batch_size=8, max_seq_len=4096, chunk_tokens=128)
GB, MIB = 1e9, 2**20


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
    parser.add_argument("--model", choices=MODELS, default="9b")
    parser.add_argument("--bare", action="store_true", help="Leave the server out.")
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
        write_checkpoint(folder / "checkpoint", options.model)
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
        if not options.bare:
            compare(folder / "engine")


if __name__ == "__main__":
    main()
