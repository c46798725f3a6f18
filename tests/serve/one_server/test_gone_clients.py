"""A client that goes frees its slot in bounded time, through the real tritonserver."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotrt.serve.engine.probe import ask_engine
from nemotrt.serve.processes.run_folder import RunFolder, ServerState

pytestmark = pytest.mark.triton
NUM_TOKENS = 900  # of which a client reads the first alone


def ask(server: ServerState, what: str) -> dict[str, Any]:
    return ask_engine(RunFolder(Path(server.run_folder)).engine_socket, what) or {}


def num_cancelled(server: ServerState) -> int:
    text = ask(server, "metrics")["text"]
    found = re.search(r'^nemotrt_requests_total\{outcome="cancelled"\} (\S+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def address(server: ServerState, door: str) -> tuple[str, dict[str, Any]]:
    """Return where a stream is asked for, and the body."""
    asked = {"max_tokens": NUM_TOKENS, "ignore_eos": True, "stream": True}
    if door == "openai":
        return f"{server.openai_url}/completions", {"model": "llm", "prompt": "The", **asked}
    return f"{server.http_url}/v2/models/llm/generate_stream", {"text_input": "The", **asked}


async def leave(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> None:
    async with client.stream("POST", url, json=body) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                return


@pytest.mark.parametrize("door", ["openai", "triton"])
@pytest.mark.parametrize(
    ("num_clients", "most_s"), [(1, 2.0), pytest.param(64, 8.0, marks=pytest.mark.slow)]
)
def test_a_slot_is_free_soon_after_its_client_has_gone(server, door, num_clients, most_s) -> None:
    """What is left to compute would take longer: the request is cancelled, it does not end."""
    url, body = address(server, door)
    before = num_cancelled(server)

    async def crowd() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            await asyncio.gather(*(leave(client, url, body) for _ in range(num_clients)))

    asyncio.run(crowd())
    left_s = time.monotonic()
    while (status := ask(server, "status"))["num_running"] + status["num_waiting"]:
        assert time.monotonic() - left_s < most_s, status
        time.sleep(0.01)
    assert num_cancelled(server) - before >= 0.9 * num_clients  # one may just have ended
