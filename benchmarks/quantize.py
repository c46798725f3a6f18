"""Time `nemotrt quantize` against `cp` and llm-compressor on a synthetic 9B-width checkpoint.

usage: python benchmarks/quantize.py [FOLDER] [--layers PATTERN] [--vocab 16384] [--rounds 3]
                                     [--without-llm-compressor]

Without FOLDER the checkpoint and all outputs are in a temporary folder, and gone at the end. By
default it has as many layers at full width as the disk has room for, at most 18 (5.3 GB). A
FOLDER keeps its checkpoint for the next time; all 56 layers need 36 GB there:

    python benchmarks/quantize.py FOLDER --layers full --vocab 131072 --without-llm-compressor

Each tool runs as a process of its own, in turn, `--rounds` times (llm-compressor, which takes
minutes, once). `x cp` is the median over the rounds of the ratio to cp in that round, `x ours` that
to the same scheme by nemotrt. The static recipes take a calibration of random activations: its
making isn't timed. Memory is the peak of RssAnon, sampled every 10 ms: what the process holds
beside mapped files and the page cache. llm-compressor is installed in an environment of its own,
once: a download of minutes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.peers import peer_python
from support.wide_checkpoint import (
    FULL_PATTERN,
    num_bytes,
    write_calibration,
    write_checkpoint,
)

# Layer patterns by size: the default is the first that fits.
PATTERNS = (FULL_PATTERN[:18], "M-M*-M-M-", "M-M*-", "M-")
OURS = {"FP8_DYNAMIC": "fp8-dynamic", "W8A8": "int8-wo"}  # scheme -> recipe of the same weights
LLM_COMPRESSOR = """
import sys
from llmcompressor import model_free_ptq
model_free_ptq(sys.argv[1], sys.argv[2], scheme=sys.argv[3], max_workers=1, device="cpu",
    ignore=["re:.*conv1d", "lm_head", "re:.*embeddings", "re:.*norm.*",
            "re:.*[qkvo]_proj"])
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One process, measured."""

    round: int
    tool: str
    wall_s: float
    cpu_s: float
    peak_anonymous_mb: float


def main() -> None:
    """Run every tool in a folder, print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--layers", default="auto", help='a pattern; "full" for all 56')
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-llm-compressor", action="store_true")
    args = parser.parse_args()
    if args.folder:
        run(args)
        return
    with tempfile.TemporaryDirectory(prefix="nemotrt-bench-") as folder:
        args.folder = Path(folder)
        run(args)


def run(args: argparse.Namespace) -> None:
    """Measure in `args.folder`, writing the checkpoint if it is missing."""
    args.folder.mkdir(parents=True, exist_ok=True)
    layers = pick_layers(args)
    source = args.folder / f"bf16-{len(layers)}-{args.vocab}"
    if not source.exists():
        write_checkpoint(source, layers, args.vocab)
        write_calibration(source, args.folder / f"{source.name}-calibration")
    runs = [run for number in range(args.rounds) for run in round_of_runs(args, source, number)]
    report(runs, source)


def pick_layers(args: argparse.Namespace) -> str:
    """Return the layers that were asked for, or the most that fit three times on the disk."""
    if args.layers != "auto":
        return FULL_PATTERN if args.layers == "full" else args.layers
    free = shutil.disk_usage(args.folder).free
    for layers in PATTERNS:
        if 3 * num_bytes(layers, args.vocab) < free:
            return layers
    sys.exit(f"{args.folder} has {free / 1e9:.1f} GB free: too little for two layers.")


def round_of_runs(args: argparse.Namespace, source: Path, number: int) -> Iterator[Run]:
    """Yield one run of each tool, in turn."""
    target = args.folder / "out"
    yield measure(number, "cp", ["cp", "-r", str(source), str(target)], target)
    for recipe in ("fp8-dynamic", "int8-wo", "fp8", "int8-sq"):
        command = [sys.executable, "-m", "nemotrt", "quantize", str(source), "--recipe", recipe]
        command += ["--calibration", f"{source}-calibration", "-o", str(target), "--quiet"]
        yield measure(number, f"nemotrt {recipe}", command, target)
    if number or args.without_llm_compressor:
        return
    python = str(peer_python("llm-compressor"))
    for scheme in OURS:
        command = [python, "-c", LLM_COMPRESSOR, str(source), str(target), scheme]
        yield measure(number, f"llm-compressor {scheme}", command, target)


def measure(number: int, tool: str, command: list[str], target: Path) -> Run:
    """Run `command` from a clean start and return its figures."""
    shutil.rmtree(target, ignore_errors=True)
    os.sync()  # nobody pays for what another left to be written
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, anonymous_bytes(child.pid))
        time.sleep(0.01)
    wall = time.perf_counter() - begin
    if status:
        assert child.stderr is not None
        sys.exit(f"{tool} failed: {child.stderr.read().decode()[-2000:]}")
    shutil.rmtree(target, ignore_errors=True)
    run = Run(number, tool, wall, usage.ru_utime + usage.ru_stime, peak / 1e6)
    print(f"{run.tool:28} {wall:7.1f} s wall {run.cpu_s:7.1f} s CPU", file=sys.stderr)
    return run


def anonymous_bytes(pid: int) -> int:
    """Return the resident anonymous memory of a process; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def report(runs: list[Run], source: Path) -> None:
    """Print the median of each tool, and how it compares with cp and with ours."""
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    print(f"{source.name}: {size / 1e9:.2f} GB; median (least .. most) of the rounds")
    heads = f"{'x cp':>6} {'x ours':>7} {'CPU s':>8} {'anonymous MB':>13}"
    print(f"{'tool':28} {'wall s':>22} {heads}")
    walls = {(run.round, run.tool): run.wall_s for run in runs}
    for tool in dict.fromkeys(run.tool for run in runs):
        same = [run for run in runs if run.tool == tool]
        times = [run.wall_s for run in same]
        span = f"{np.median(times):.1f} ({min(times):.1f} .. {max(times):.1f})"
        ratio = np.median([run.wall_s / walls[run.round, "cp"] for run in same])
        recipe, to_ours = OURS.get(tool.split()[-1]), ""
        if recipe:
            ratios = [run.wall_s / walls[run.round, f"nemotrt {recipe}"] for run in same]
            to_ours = f"{np.median(ratios):.1f}"
        cpu = np.median([run.cpu_s for run in same])
        peak = max(run.peak_anonymous_mb for run in same)
        print(f"{tool:28} {span:>22} {ratio:6.2f} {to_ours:>7} {cpu:8.1f} {peak:13.0f}")
    print(json.dumps([asdict(run) for run in runs]))


if __name__ == "__main__":
    main()
