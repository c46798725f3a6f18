"""The whole 9B through the server: its decode rate beside the bare engine's, in turns.

Eight streams of completions at the model card's settings (Source: model card), over HTTP and Triton
where its runtime is installed. A stream's rate runs from its first token to its last.
"""

import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState

STREAMS, TOKENS, ROUNDS = 8, 48, 2
CARD = {"temperature": 0.6, "top_p": 0.95}  # Source: model card
PROMPT = "Mamba layers carry their state along; attention looks back at all that was said."


def stream_rate(server: ServerState, seed: int) -> float:
    """Return the tokens per second of one stream."""
    body: dict[str, Any] = {"model": "llm", "prompt": PROMPT, "max_tokens": TOKENS, "seed": seed}
    body |= CARD | {"ignore_eos": True, "stream": True, "logprobs": None}
    body |= {"stream_options": {"include_usage": True}}
    times: list[float] = []
    count = 0
    url = f"{server.openai_url}/completions"
    with httpx.stream("POST", url, json=body, timeout=600) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            times += [time.perf_counter()] if event["choices"] else []
            count = (event.get("usage") or {}).get("completion_tokens", count)
    assert count == TOKENS, f"{count} tokens"
    return (count - 1) / (times[-1] - times[0])


def served_rate(server: ServerState) -> float:
    """Return the tokens per second of all streams together."""
    rates = [0.0] * STREAMS

    def one(number: int) -> None:
        rates[number] = stream_rate(server, number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def bare_rate(folder: Path) -> float:
    """Return the engine's own rate with as many sequences, in a process of its own."""
    script = Path(__file__).with_name("full_size.py")
    command = [sys.executable, str(script), "--decode", str(folder)]
    return float(subprocess.check_output(command, text=True).split()[-1])


def compare(folder: Path) -> None:
    """Print both rates and the share; the bare engine is measured before and after each run."""
    bare = [bare_rate(folder)]
    served = []
    for _ in range(ROUNDS):
        with serve_engine(folder) as server:
            served_rate(server)  # reads the weights, warms every process
            served.append(served_rate(server))
        bare.append(bare_rate(folder))
    beside = [statistics.mean(pair) for pair in itertools.pairwise(bare)]
    shares = [rate / mean for rate, mean in zip(served, beside, strict=True)]
    print(
        f"decode, batch {STREAMS}, through serve: {_joined(served)} tokens/s; "
        f"bare before and after: {_joined(bare)}; shares {_joined(shares)}"
    )


def _joined(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
