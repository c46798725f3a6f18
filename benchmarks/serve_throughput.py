"""Tokens per second of the whole stack (OpenAI -> Triton -> engine) beside the bare engine's.

python benchmarks/serve_throughput.py --engine tiny --streams 32 --streams 128
python benchmarks/serve_throughput.py --engine paced --step-ms 5 --streams 128
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.engine import Limits
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.request import Request
from nemotrt.engines.sampling import SamplingParams
from nemotrt.engines.tiny_models import resolve_checkpoint
from nemotrt.serve.launcher import serve_engine
from nemotrt.serve.run_folder import ServerState

HERE = Path(__file__).parent
PROMPT = "The engine and the server"


def bare_tokens_per_s(opened: OpenEngine, num_streams: int, num_tokens: int) -> float:
    """Return the scheduler's own rate, in this process."""
    assert opened.tokenizer is not None
    prompt = tuple(opened.tokenizer.encode(PROMPT))
    params = SamplingParams(max_tokens=num_tokens, ignore_eos=True)
    scheduler = opened.scheduler()
    for number in range(num_streams):
        scheduler.submit(Request(str(number), prompt, params))
    start_s = time.perf_counter()
    num_done = 0
    while not scheduler.is_idle:
        num_done += sum(len(update.tokens) for update in scheduler.step())
    return num_done / (time.perf_counter() - start_s)


async def one_stream(server: ServerState, num_tokens: int) -> int:
    """Run one streamed request over a raw socket; return its token count from `usage`."""
    host, _, port = server.openai_url.removeprefix("http://").removesuffix("/v1").partition(":")
    body = {"model": "llm", "prompt": PROMPT, "max_tokens": num_tokens, "temperature": 0}
    body |= {"stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    tail = b""
    while chunk := await reader.read(1 << 16):
        tail = (tail + chunk)[-4096:]
    writer.close()
    usage = tail[tail.rindex(b'"completion_tokens":') + 20 :]
    return int(usage[: usage.index(b",")])


async def all_streams(server: ServerState, num_streams: int, num_tokens: int) -> float:
    """Return tokens per second over all streams, from the first request to the last byte."""
    start_s = time.perf_counter()
    counts = await asyncio.gather(*(one_stream(server, num_tokens) for _ in range(num_streams)))
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


@click.command()
@click.option("--engine", "kind", type=click.Choice(["tiny", "tiny-dense", "paced"]), required=True)
@click.option("--streams", type=int, multiple=True, default=(32, 128))
@click.option("--tokens", type=int, default=200)
@click.option("--step-ms", type=float, default=5.0)
@click.option("--no-triton", is_flag=True)
@click.option("--max-chunks-per-s", type=float, default=2000)
@click.option("--runs", type=int, default=2)
def main(
    kind: str,
    streams: tuple[int, ...],
    tokens: int,
    step_ms: float,
    no_triton: bool,
    max_chunks_per_s: float,
    runs: int,
) -> None:
    """Print one JSON object a measurement."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "PACED_STEP_MS": str(step_ms)}
    sys.path.insert(0, str(HERE))
    folder = Path(tempfile.mkdtemp()) / "engine"
    limits = Limits(max_batch_size=max(streams), max_seq_len=2048, chunk_tokens=32)
    name = "tiny-dense" if kind == "paced" else kind
    build_engine(resolve_checkpoint(name), folder, BuildSpec(limits=limits))
    if kind == "paced":
        from serve_paced_host import open_paced

        opened = open_paced(folder)
        options = ["--engine-module", "serve_paced_host"]
    else:
        opened = open_engine(folder, num_threads=1)
        options = ["--threads", "1"]
    options += ["--no-triton"] if no_triton else []
    options += ["--max-chunks-per-s", str(max_chunks_per_s)]
    for count in streams:
        for _ in range(runs):
            bare = bare_tokens_per_s(opened, count, tokens)
            with serve_engine(folder, *options) as server:
                asyncio.run(all_streams(server, min(count, 8), 8))
                before = cpu_s(server)
                full = asyncio.run(all_streams(server, count, tokens))
                cost = {n: (t - before[n]) * 1e6 / count / tokens for n, t in cpu_s(server).items()}
            row = {"engine": kind, "triton": not no_triton, "streams": count, "tokens": tokens}
            row |= {"bare_tokens_per_s": round(bare), "stack_tokens_per_s": round(full)}
            row |= {"share": round(full / bare, 3)}
            click.echo(
                json.dumps(row | {"cpu_us_per_token": {n: round(c) for n, c in cost.items()}})
            )


if __name__ == "__main__":
    main()
