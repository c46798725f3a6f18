"""What a full-size TensorRT build costs, each precision and GPU: time, memory, plan, layers.

The checkpoint has the real config and tensors, written as a sparse file: its weights are zeros and
take no disk. Nothing runs the plans. `--times 2` builds each twice and compares the plans' bytes.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.compile.layer_check import (
    LAYERS_FILE,
    PROFILES,
    check_layers,
)
from nemotrt.engines.backends.tensorrt.compile.layer_report import read_report
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.runtime.engine import Limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.sparse_checkpoint import QUANTIZED, write_sparse

LIMITS = Limits(max_batch_size=8, max_seq_len=24576 + 512, chunk_tokens=512)
DEFAULT = [*itertools.product(("bf16", "int8-wo", "int8-sq"), ("a10g", "a100")), ("fp8", "l4")]


def build(source: Path, target: Path, gpu: str, times: int) -> None:
    """Build `times` times; print each build's cost, and whether the plans are the same."""
    digests = set()
    for _ in range(times):
        compiled: list[compiler.Compiled] = []
        original = compiler.compile_plan

        def keep(
            *args: Any, original: Any = original, compiled: Any = compiled, **kwargs: Any
        ) -> Any:
            compiled.append(original(*args, **kwargs))
            return compiled[-1]

        compiler.compile_plan = keep
        start = time.monotonic()
        try:
            build_engine(source, target, BuildSpec("tensorrt", gpu, limits=LIMITS), force=True)
        finally:
            compiler.compile_plan = original
        seconds = time.monotonic() - start
        manifest, cost = read_manifest(target), compiled[0]
        plan = manifest.files[compiler.PLAN_FILE]
        digests.add(plan.sha256)
        print(
            f"{manifest.precision:8} {gpu:5} {seconds:6.0f} s in all, {cost.seconds:.0f} s "
            f"({cost.cpu_seconds:.0f} s of CPU) and {cost.peak_bytes / 2**30:.2f} GiB to compile, "
            f"plan {plan.num_bytes / 1e6:.1f} MB",
            flush=True,
        )
    if times > 1:
        print(f"  {times} builds, {len(digests)} different plan(s)")
    report = read_report(json.loads((target / LAYERS_FILE).read_text()))
    stored = {name: weight.dtype for name, weight in manifest.weights.items()}
    found = check_layers(report, open_checkpoint(source).config, stored, manifest.precision)
    for profile, word in PROFILES.items():
        print(
            f"  {word}: {found.num_kernels[word]} kernels, {found.fused_attention[word]} fused "
            f"attention, {found.cache_updates[word]} cache updates in place, activations "
            f"{report.activation_bytes[profile] / 2**20:.0f} MiB; linears: {found.counts(word)}"
        )
    print(f"  faults: {'; '.join(found.faults) or 'none'}", flush=True)


def main() -> None:
    """Build each wanted pair in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", metavar="PRECISION GPU", help="default: all")
    parser.add_argument("--model", default="nemotron-nano-9b-v2")
    parser.add_argument("--times", type=int, default=1, help="builds of each, to compare plans")
    arguments = parser.parse_args()
    words = arguments.pairs
    if len(words) % 2 or any(word not in QUANTIZED for word in words[::2]):
        sys.exit(f"give pairs of a precision ({', '.join(QUANTIZED)}) and a GPU")
    pairs = list(zip(words[::2], words[1::2], strict=True)) or DEFAULT
    with tempfile.TemporaryDirectory() as folder:
        for precision, gpu in pairs:
            source = Path(folder) / precision
            if not source.exists():
                write_sparse(source, arguments.model, precision)
            build(source, Path(folder) / "engine", gpu, arguments.times)


if __name__ == "__main__":
    main()
