"""What weights as inputs of a plan cost, and what embedding them costs: from the layer reports.

One layer of each kind at the real widths, with random weights, compiled both ways. Nothing runs the
plans: kernels, their types and fusions are the compiler's own report.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np

from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.compile.layer_check import PROFILES, check_layers
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.profiles.hardware.gpu_profile import load_gpu

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.sparse_checkpoint import write_sparse

LIMITS = Limits(max_batch_size=8, max_seq_len=8192, chunk_tokens=512)
DEFAULT = [("bf16", "a10g"), ("int8-wo", "a10g"), ("int8-sq", "a10g"), ("fp8", "l4")]


def fill(checkpoint: Checkpoint) -> None:
    """Write random weights over the zeros; scales stay as they are."""
    rng = np.random.default_rng(0)
    pool = {
        "BF16": rng.normal(0, 0.02, 1 << 20).astype(ml_dtypes.bfloat16),
        "I8": rng.integers(-127, 128, 1 << 20).astype(np.int8),
        "F8_E4M3": rng.normal(0, 100, 1 << 20).astype(ml_dtypes.float8_e4m3fn),
    }
    for ref in checkpoint.tensors.values():
        if ref.dtype in pool:
            block = pool[ref.dtype].tobytes()
            with ref.path.open("r+b") as file:
                file.seek(ref.offset)
                for begin in range(0, ref.num_bytes, len(block)):
                    file.write(block[: ref.num_bytes - begin])


def compare(checkpoint: Checkpoint, precision: Precision, gpu: str, folder: Path) -> None:
    """Compile both ways and print what each makes of the graph."""
    weights_bytes = sum(ref.num_bytes for ref in checkpoint.tensors.values())
    capability = load_gpu(gpu).compute_capability
    assert capability is not None
    for is_embedded in (False, True):
        target = folder / f"{precision}-{is_embedded}"
        target.mkdir()
        bound = graph_export.export(checkpoint, target, LIMITS, precision, is_embedded=is_embedded)
        found = compiler.compile_plan(target, LIMITS, capability)
        dtypes = {name: weight.dtype for name, weight in bound.items()}
        check = check_layers(found.report, checkpoint.config, dtypes, precision)
        plan_bytes = (target / compiler.PLAN_FILE).stat().st_size
        print(
            f"{precision:8} {gpu:5} {'embedded' if is_embedded else 'bound':8} "
            f"{found.cpu_seconds:4.0f} s of CPU, "
            f"peak {found.peak_bytes / weights_bytes:.1f} x the weights, "
            f"plan {plan_bytes / 1e6:.0f} MB ({plan_bytes / weights_bytes:.2f} x)"
        )
        for word in PROFILES.values():
            print(f"    {word:7} {check.num_kernels[word]} kernels; {check.counts(word)}")
        merged = [
            layer.nodes
            for layer in found.report.kernels(0)
            if sum(node.endswith("_proj") for node in layer.nodes) > 1
        ]
        print(f"    merged linears: {merged or 'none'}", flush=True)


def main() -> None:
    """Compare each pair of precision and GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nemotron-nano-9b-v2")
    parser.add_argument("pairs", nargs="*", metavar="PRECISION GPU", help="default: all")
    arguments = parser.parse_args()
    words = arguments.pairs
    for name, gpu in list(zip(words[::2], words[1::2], strict=True)) or DEFAULT:
        with tempfile.TemporaryDirectory() as folder:
            source = write_sparse(Path(folder) / "c", arguments.model, name, is_slice=True)
            fill(open_checkpoint(source))
            compare(open_checkpoint(source), Precision(name), gpu, Path(folder))


if __name__ == "__main__":
    main()
