"""Tokens per second of the whole stack (OpenAI -> Triton -> engine) beside the bare engine's.

Run: python benchmarks/serve_throughput.py [--engine tiny] [--vocabulary shipped] [--streams 32]

Bare and stack take turns in pairs, while the one server stays up; `share` is the median of the
pairs' ratios, so what slows the machine for longer than a pair slows both sides. `paced` is a
device that chooses tokens itself, as a GPU does; its steps take a fixed time and no CPU, so what it
offers is known.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.serve.front.http.access import KEYS_VARIABLE
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState

HERE = Path(__file__).parent
PROMPT = "The engine and the server"
ENGINES = ("paced", "tiny", "tiny-dense")
SAMPLING = {"greedy": {}, "card": {"temperature": 0.6, "top_p": 0.95}}  # Source: model card


@dataclass(frozen=True, slots=True)
class Pair:
    """The bare engine and the whole stack, one right after the other."""

    bare_tokens_per_s: float
    stack_tokens_per_s: float
    bare_cpu_us_per_token: float
    cpu_us_per_token: dict[str, float]  # of the stack's processes

    @property
    def share(self) -> float:
        """What of the bare engine's rate the stack has."""
        return self.stack_tokens_per_s / self.bare_tokens_per_s

    @property
    def cpu_share(self) -> float:
        """The bare engine's CPU time of the whole stack's: what others do spoils it less."""
        return self.bare_cpu_us_per_token / sum(self.cpu_us_per_token.values())


def bare_run(
    opened: OpenEngine, num_streams: int, num_tokens: int, sampling: dict[str, float]
) -> tuple[float, float]:
    """Return the scheduler's own tokens per second, and its CPU us per token, in this process."""
    assert opened.tokenizer is not None
    prompt = tuple(opened.tokenizer.encode(PROMPT))
    params = SamplingParams(max_tokens=num_tokens, ignore_eos=True, **sampling)  # type: ignore[arg-type]
    scheduler = opened.scheduler()
    for number in range(num_streams):
        scheduler.submit(Request(str(number), prompt, params))
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    num_done = 0
    while not scheduler.is_idle:
        num_done += sum(len(update.tokens) for update in scheduler.step())
    rate = num_done / (time.perf_counter() - start_s)
    return rate, 1e6 * (time.process_time() - start_cpu_s) / num_done


async def one_stream(server: ServerState, num_tokens: int, sampling: dict[str, float]) -> int:
    """Run one streamed request over a raw socket; return its token count from `usage`."""
    host, _, port = server.openai_url.removeprefix("http://").removesuffix("/v1").partition(":")
    body: dict[str, Any] = {"model": "llm", "prompt": PROMPT, "max_tokens": num_tokens}
    body |= {"temperature": 0} | sampling
    body |= {"stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    tail = b""
    while chunk := await reader.read(1 << 16):
        tail = (tail + chunk)[-4096:]
    writer.close()
    usage = tail[tail.rindex(b'"completion_tokens":') + 20 :]
    return int(usage[: usage.index(b",")])


async def all_streams(
    server: ServerState, num_streams: int, num_tokens: int, sampling: dict[str, float]
) -> float:
    """Return tokens per second over all streams, from the first request to the last byte."""
    start_s = time.perf_counter()
    streams = (one_stream(server, num_tokens, sampling) for _ in range(num_streams))
    counts = await asyncio.gather(*streams)
    return sum(counts) / (time.perf_counter() - start_s)


def cpu_s(server: ServerState) -> dict[str, float]:
    """Return the CPU seconds of each process so far; the stub is Triton's child."""
    times = {}
    for name, pid in server.processes.items():
        process = psutil.Process(pid)
        times[name] = sum(process.cpu_times()[:2])
        if name == "triton":
            times["stub"] = sum(sum(c.cpu_times()[:2]) for c in process.children(recursive=True))
    return times


def one_pair(
    opened: OpenEngine,
    server: ServerState,
    num_streams: int,
    num_tokens: int,
    sampling: dict[str, float],
) -> Pair:
    """Measure the bare engine, then the stack; without `sampling` both are greedy."""
    bare, bare_us = bare_run(opened, num_streams, num_tokens, sampling)
    before = cpu_s(server)
    stack = asyncio.run(all_streams(server, num_streams, num_tokens, sampling))
    spent_us = {name: 1e6 * (spent - before[name]) for name, spent in cpu_s(server).items()}
    total = num_streams * num_tokens
    return Pair(bare, stack, bare_us, {name: us / total for name, us in spent_us.items()})


def summary(pairs: Sequence[Pair]) -> dict[str, object]:
    """Return every pair's rates and the medians."""
    cost = {
        name: round(statistics.median(pair.cpu_us_per_token[name] for pair in pairs))
        for name in pairs[0].cpu_us_per_token
    }
    bare_us = statistics.median(pair.bare_cpu_us_per_token for pair in pairs)
    return {
        "bare_tokens_per_s": [round(pair.bare_tokens_per_s) for pair in pairs],
        "stack_tokens_per_s": [round(pair.stack_tokens_per_s) for pair in pairs],
        "shares": [round(pair.share, 3) for pair in pairs],
        "share": round(statistics.median(pair.share for pair in pairs), 3),
        "bare_cpu_us_per_token": round(bare_us),
        "cpu_us_per_token": cost,
        "cpu_share": round(statistics.median(pair.cpu_share for pair in pairs), 3),
    }


def build(kind: str, vocabulary: str, folder: Path, max_streams: int) -> OpenEngine:
    """Build the engine into `folder` and open it in this process."""
    limits = Limits(max_batch_size=max_streams, max_seq_len=2048, chunk_tokens=32)
    name = "tiny-dense" if kind == "paced" else kind
    if vocabulary == "real":
        from support.real_size import write_checkpoint

        checkpoint = write_checkpoint(folder.parent / "checkpoint", name)
    else:
        checkpoint = checkpoint_folder(name)
    build_engine(checkpoint, folder, BuildSpec(limits=limits))
    if kind != "paced":
        return open_engine(folder, OpenOptions(1))
    from serve_paced_host import open_paced

    return open_paced(folder)


@click.command()
@click.option("--engine", "kinds", type=click.Choice(ENGINES), multiple=True, default=ENGINES[:2])
@click.option("--vocabulary", type=click.Choice(("shipped", "real")), default="real")
@click.option("--sampling", type=click.Choice(tuple(SAMPLING)), default="card")
@click.option("--streams", type=click.IntRange(1), multiple=True, default=(32, 128))
@click.option("--tokens", type=click.IntRange(2), default=200)
@click.option("--step-ms", type=float, default=5.0, help="Of the paced engine.")
@click.option("--no-triton", is_flag=True)
@click.option("--max-chunks-per-s", type=float, help="Else the server's own default.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Pairs of each measurement.")
def main(
    kinds: tuple[str, ...],
    vocabulary: str,
    sampling: str,
    streams: tuple[int, ...],
    tokens: int,
    step_ms: float,
    no_triton: bool,
    max_chunks_per_s: float | None,
    rounds: int,
) -> None:
    """Print one JSON object for each engine and number of streams."""
    tests = str(HERE.parent / "tests")
    sys.path.insert(0, tests)
    paths = [str(HERE), tests, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "PACED_STEP_MS": str(step_ms)}
    os.environ.pop(KEYS_VARIABLE, None)  # our clients send none
    sys.path.insert(0, str(HERE))
    common = ["--no-triton"] * no_triton
    if max_chunks_per_s is not None:
        common += ["--max-chunks-per-s", str(max_chunks_per_s)]
    chosen = SAMPLING[sampling]
    for kind in kinds:
        how = ["--engine-module", "serve_paced_host"] if kind == "paced" else ["--threads", "1"]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "engine"
            opened = build(kind, vocabulary, folder, max(streams))
            with serve_engine(folder, *how, *common) as server:
                for count in streams:
                    row = {"engine": kind, "triton": not no_triton, "streams": count}
                    row |= {"vocabulary": vocabulary, "sampling": sampling, "tokens": tokens}
                    row |= {"load_average": round(os.getloadavg()[0], 1)}
                    one_pair(opened, server, count, 8, chosen)  # warm-up of both
                    pairs = [one_pair(opened, server, count, tokens, chosen) for _ in range(rounds)]
                    click.echo(json.dumps(row | summary(pairs)))
            opened.engine.close()


if __name__ == "__main__":
    main()
