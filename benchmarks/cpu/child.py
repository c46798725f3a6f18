"""One engine in a process of its own: its threads, its memory, and nobody else's.

Reads commands from stdin and writes results to stdout, both as JSON, one a line. The parent lets
one child work at a time.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Runner(Protocol):
    """A batch of equally long sequences on one engine."""

    def begin(self, batch: int) -> None:
        """Drop all sequences and start `batch` empty ones."""

    def feed(self, tokens: np.ndarray) -> None:
        """Give each sequence its new tokens, [batch, count]; logits of each last one are made."""

    def all_logits(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits of every position of one sequence, [tokens, vocabulary]."""


def open_runner(spec: dict[str, Any]) -> Runner:
    """Return the engine that a spec names; only that engine's libraries are imported."""
    if spec["engine"] in ("native", "onnxruntime"):
        from runners_own import OwnRunner

        return OwnRunner(spec)
    if spec["engine"] == "llama.cpp":
        from runners_llama import LlamaRunner

        return LlamaRunner(spec)
    if spec["engine"] == "vllm-cpu":
        from runners_vllm import VllmRunner

        return VllmRunner(spec)
    from runners_transformers import TransformersRunner

    return TransformersRunner(spec)


def serve() -> None:
    """Answer commands until stdin ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    spec = json.loads(sys.stdin.readline())
    start = time.perf_counter()
    runner = open_runner(spec)
    _answer(out, {"open_s": time.perf_counter() - start})
    rng = np.random.default_rng(0)
    batch = 0
    for line in sys.stdin:
        command = json.loads(line)
        result: dict[str, Any] = {}
        if command["do"] == "begin":
            batch = command["batch"]
            runner.begin(batch)
            if command["held"]:
                runner.feed(rng.integers(3, spec["vocab"], (batch, command["held"])))
        elif command["do"] == "feed":
            result["seconds"] = []
            for _ in range(command["times"]):
                tokens = rng.integers(3, spec["vocab"], (batch, command["tokens"]))
                start = time.perf_counter()
                runner.feed(tokens)
                result["seconds"].append(time.perf_counter() - start)
        elif command["do"] == "logits":
            np.save(command["path"], runner.all_logits(np.array([command["tokens"]])))
        # not getrusage's peak: that counts the process that we were forked from
        result["peak_bytes"] = resident_bytes("VmHWM")
        _answer(out, result)


def resident_bytes(field: str) -> int:
    """Return a field of this process's status, such as RssAnon."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def _answer(out: Any, result: dict[str, Any]) -> None:
    """Write one line."""
    out.write(json.dumps(result) + "\n")
    out.flush()


if __name__ == "__main__":
    serve()
