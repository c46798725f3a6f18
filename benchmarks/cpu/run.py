"""This machine's CPU engines side by side: ours, llama.cpp, transformers, and vLLM if it is named.

Each engine has a process of its own, equal threads and the same weights (int8, or 16-bit floats);
they work in turn, a few steps each, so that what else the machine does touches all alike. Quote the
ratios. Writes results.json and report.html, and prints a table.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from context import measure_context
from models import checkpoint
from peers import ENTRIES, Entry, Peer, prepare, start
from report import print_table, write_page
from result import Error, Result

from nemotrt.engines.backends.native.library.machine_limits import MachineLimits, measure_limits
from nemotrt.engines.backends.native.program.program import Program, read_program
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.runtime.engine import Limits
from nemotrt.profiles.engine_step.load import Load
from nemotrt.profiles.engine_step.roofline import least_seconds
from nemotrt.profiles.engine_step.work import work_of

HELD_TOKENS = 32
CASES = {  # a step that is timed, by name
    **{f"decode, batch {batch}": Load(batch, HELD_TOKENS) for batch in (1, 8, 32)},
    **{f"prefill, {count} tokens": Load(1, 0, count) for count in (128, 512)},
}
LIMITS = Limits(max_batch_size=32, max_seq_len=1024, chunk_tokens=512)
TURN_S, MAX_CALLS = 0.25, 32  # about how long an engine works before the next one does
# A library's threads may spin on after a call, on the cores of the next one; llama.cpp's do so for
# tenths of a second. So each turn waits until nobody works.
SETTLE_S, MAX_SETTLE_S = 0.05, 5.0
NUM_COMPARED = 64  # tokens whose logits are compared
# A turn of these takes seconds: they need not be shown to be slow again and again.
SLOW_ENGINES, SLOW_ROUNDS = ("transformers",), 2


def open_group(
    model: str, group: str, options: argparse.Namespace, folder: Path
) -> tuple[list[Peer], int]:
    """Return the engines of one group, open, and the vocabulary's size."""
    vocab = read_model_config(checkpoint(model, folder)).vocab_size
    peers = []
    for entry in ENTRIES:
        is_wanted = entry.engine in options.engines or (entry.engine == "vllm-cpu" and options.vllm)
        if entry.group != group or not is_wanted:
            continue
        spec = {
            **prepare(entry, model, folder, LIMITS),
            "threads": options.threads,
            "batch": LIMITS.max_batch_size,
            "max_seq_len": LIMITS.max_seq_len,
            "chunk": LIMITS.chunk_tokens,
            "vocab": vocab,
            "is_verbose": options.verbose,
        }
        python = options.vllm if entry.engine == "vllm-cpu" else sys.executable
        peers.append(start(entry, spec, python))
        print(f"{model}: {entry.label} open in {peers[-1].open_s:.2f} s", file=sys.stderr)
    return peers, vocab


def measure(peers: list[Peer], load: Load, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each engine's calls, in turn."""
    for peer in peers:
        peer.ask(do="begin", batch=load.batch, held=load.held)
    seconds: dict[str, list[float]] = {peer.entry.label: [] for peer in peers}
    turns = {peer.entry.label: 1 for peer in peers}
    for index in range(rounds + 1):  # the first turn only warms up
        for peer in peers:
            label = peer.entry.label
            if peer.entry.engine in SLOW_ENGINES and index > SLOW_ROUNDS:
                continue
            settle(peers)
            found = take_turn(peer, load, turns[label])
            seconds[label] += found if index else []
            turns[label] = max(1, min(MAX_CALLS, int(TURN_S / found[-1])))
    return seconds


def take_turn(peer: Peer, load: Load, num_calls: int) -> list[float]:
    """Return the seconds of an engine's calls.

    Decode steps follow each other at once, as in generation; a prompt begins with empty slots.
    """
    if load.tokens == 1:
        seconds: list[float] = peer.ask(do="feed", tokens=1, times=num_calls)["seconds"]
        return seconds
    found = []
    for _ in range(num_calls):
        peer.ask(do="begin", batch=load.batch, held=load.held)
        found += peer.ask(do="feed", tokens=load.tokens, times=1)["seconds"]
    return found


def settle(peers: list[Peer]) -> None:
    """Return when no engine has used a CPU for `SETTLE_S` seconds."""
    end = time.perf_counter() + MAX_SETTLE_S
    used, before = sum(peer.cpu_s() for peer in peers), -1.0
    while used > before:
        if time.perf_counter() > end:
            raise SystemExit(f"an engine works on without a call for {MAX_SETTLE_S:g} s")
        time.sleep(SETTLE_S)
        used, before = sum(peer.cpu_s() for peer in peers), used


def roofline_s(program: Program, entry: Entry, load: Load, limits: MachineLimits) -> float | None:
    """Return the least time of a step with this entry's weights, None where they are not known."""
    if (factor := entry.weight_factor) is None:
        return None
    total = 0.0
    for operation in program.operations:
        work = work_of(program, operation, load)
        work = dataclasses.replace(work, read_bytes=work.read_bytes * factor)
        total += least_seconds(work, limits)[0]
    return total


def compare_logits(peers: list[Peer], vocab: int, folder: Path) -> dict[str, np.ndarray]:
    """Return each engine's logits of one sequence."""
    tokens = np.random.default_rng(1).integers(3, vocab, NUM_COMPARED).tolist()
    found = {}
    for peer in peers:
        if peer.entry.engine == "vllm-cpu":
            continue  # it returns no logits
        path = folder / "logits.npy"
        peer.ask(do="logits", tokens=tokens, path=str(path))
        found[peer.entry.label] = np.load(path)
    return found


def run_model(
    model: str, options: argparse.Namespace, folder: Path
) -> tuple[list[Result], list[Error], MachineLimits]:
    """Measure one model with every engine."""
    results: list[Result] = []
    logits: dict[str, np.ndarray] = {}
    limits = measure_limits(options.threads)
    for group in dict.fromkeys(entry.group for entry in ENTRIES):
        peers, vocab = open_group(model, group, options, folder)
        native = next((peer for peer in peers if peer.entry.engine == "native"), None)
        program = (
            read_program(folder / f"{model}-native-{native.entry.weights}") if native else None
        )
        measured = {name: measure(peers, load, options.rounds) for name, load in CASES.items()}
        limits = limits.best_of(measure_limits(options.threads))
        for name, seconds in measured.items():
            for peer in peers:
                entry, load = peer.entry, CASES[name]
                least = roofline_s(program, entry, load, limits) if program else None
                times = seconds[entry.label]
                results.append(Result.of(model, entry, name, load, times, least, peer.peak_bytes))
        logits |= compare_logits(peers, vocab, folder)
        for peer in peers:
            peer.close()
    reference = logits.get("transformers float32")
    if reference is None:
        return results, [], limits
    errors = [Error.of(model, label, rows, reference) for label, rows in logits.items()]
    return results, errors, limits


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="tiny,mid,wide", help="Of tiny, mid, wide.")
    parser.add_argument("--engines", default="native,onnxruntime,llama.cpp,transformers")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vllm", help="A Python that has vllm-cpu, to measure it too.")
    parser.add_argument("--folder", type=Path, help="Keep models and engines here.")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench-cpu"))
    parser.add_argument("--no-context", action="store_true", help="Leave out ms against context.")
    parser.add_argument("--verbose", action="store_true", help="Show what the engines print.")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        results, errors, machine = [], [], {}
        for model in options.models.split(","):
            try:
                found, off, limits = run_model(model, options, folder)
            except (OSError, subprocess.CalledProcessError) as error:
                sys.exit(f"an engine can't be prepared: {error}; leave it out with --engines")
            results, errors, machine = results + found, errors + off, dataclasses.asdict(limits)
            print_table(found, off)
        contexts = [] if options.no_context else measure_context(folder, options.threads)
    everything: dict[str, Any] = {
        "schema_version": 1,
        "machine": machine,
        "results": [dataclasses.asdict(result) for result in results],
        "errors": [dataclasses.asdict(error) for error in errors],
        "contexts": [dataclasses.asdict(context) for context in contexts],
    }
    (options.output / "results.json").write_text(json.dumps(everything, indent=1) + "\n")
    write_page(options.output / "report.html", results, errors, contexts, machine)
    print(f"{options.output}: results.json, report.html", file=sys.stderr)


if __name__ == "__main__":
    main()
