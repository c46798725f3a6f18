"""Many streams with cancels, stalls, disconnects and oversize prompts: nothing mixed, nothing left.

The trained model runs, greedily; every finished answer must equal its solo run.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from typing import Any

import httpx
import psutil
import pytest

from nemotrt.engines.opening import open_engine
from nemotrt.engines.request import Request
from nemotrt.engines.sampling import SamplingParams
from nemotrt.serve.engine_probe import engine_status
from nemotrt.serve.launcher import serve_engine
from nemotrt.serve.run_folder import RunFolder, ServerState

pytestmark = [pytest.mark.triton, pytest.mark.slow]
NUM_STREAMS = 128
DURATION_S = float(os.environ.get("NEMOTRT_STORM_S", "60"))
WORDS = ("The", "engine", "runs", "a", "server", "with", "many", "users", "one", "model")


def prompts() -> list[str]:
    rng = random.Random(1)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(24)]


def solo_runs(engine_folder) -> dict[str, str]:
    """Return each prompt's text, alone in the engine."""
    opened = open_engine(engine_folder, num_threads=1)
    assert opened.tokenizer is not None
    runs = {}
    for prompt in prompts():
        scheduler = opened.scheduler()
        ids = tuple(opened.tokenizer.encode(prompt))
        scheduler.submit(Request("r", ids, SamplingParams(max_tokens=32, ignore_eos=True)))
        tokens = []
        while not scheduler.is_idle:
            tokens += [token.id for update in scheduler.step() for token in update.tokens]
        runs[prompt] = opened.tokenizer.decode(tokens)
    opened.engine.close()
    return runs


async def one(client: httpx.AsyncClient, rng: random.Random, solo: dict[str, Any]) -> str:
    """Run one request in one of the ways of clients; return how it ended."""
    kind = rng.choices(["whole", "cancel", "stall", "oversize"], [6, 3, 1, 1])[0]
    prompt = rng.choice(list(solo))
    body = {"model": "llm", "prompt": prompt, "max_tokens": 32, "temperature": 0}
    body |= {"ignore_eos": True, "stream": rng.random() < 0.8 or kind != "whole"}
    if kind == "oversize":
        answer = await client.post("completions", json=body | {"prompt": "x " * 4000})
        assert answer.status_code == 400
        return kind
    if not body["stream"]:
        answer = await client.post("completions", json=body)
        assert answer.is_success, answer.text
        assert answer.json()["choices"][0]["text"] == solo[prompt]
        return "whole"
    text, stop_after = "", rng.randint(0, 20) if kind == "cancel" else 1000
    async with client.stream("POST", "completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        num_events = 0
        async for line in answer.aiter_lines():
            num_events += 1
            if num_events > stop_after:
                return "cancel"
            if kind == "stall" and num_events == 2:
                await asyncio.sleep(rng.random() * 2)
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["text"]
    assert text == solo[prompt]
    return kind


async def storm(server: ServerState, solo: dict[str, Any], seconds: float) -> Counter[str]:
    ends: Counter[str] = Counter()
    until_s = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=NUM_STREAMS)

    async def stream(seed: int, client: httpx.AsyncClient) -> None:
        rng = random.Random(seed)
        while time.monotonic() < until_s:
            ends[await one(client, rng, solo)] += 1

    async with httpx.AsyncClient(base_url=server.openai_url, timeout=120, limits=limits) as client:
        await asyncio.gather(*(stream(seed, client) for seed in range(NUM_STREAMS)))
    return ends


def resources(server: ServerState) -> dict[str, tuple[int, int, int]]:
    """Return threads, open files and resident bytes of each process."""
    found = {}
    for name, pid in server.processes.items():
        for process in (psutil.Process(pid), *psutil.Process(pid).children()):
            key = f"{name}/{process.name()}"
            found[key] = (process.num_threads(), process.num_fds(), process.memory_info().rss)
    return found


def test_a_storm_of_clients(engine_folder, triton_runtime) -> None:
    solo = solo_runs(engine_folder)
    with serve_engine(engine_folder, "--threads", "1", drain_s=5) as server:
        asyncio.run(storm(server, solo, min(DURATION_S / 4, 30)))
        time.sleep(2)
        before = resources(server)
        ends = asyncio.run(storm(server, solo, DURATION_S))
        print(dict(ends))
        assert ends["whole"] > 50 and ends["cancel"] > 10
        deadline = time.monotonic() + 10
        socket = RunFolder(server_folder(server)).engine_socket
        while (status := engine_status(socket)) is None or (
            status["num_running"] or status["num_waiting"]
        ):
            assert time.monotonic() < deadline, f"slots are left: {status}"
            time.sleep(0.1)
        time.sleep(2)
        after = resources(server)
        print(before, after)
        for name, (threads, files, rss) in after.items():
            assert threads <= before[name][0] + 8, name
            assert files <= before[name][1] + 16, name
            assert rss <= before[name][2] * 1.25 + (64 << 20), name
        state = RunFolder(server_folder(server)).read_state()
        assert state is not None and not any(state.restarts.values())


def server_folder(server: ServerState):
    from pathlib import Path

    return Path(server.run_folder)
