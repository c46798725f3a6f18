"""One client makes the server work; the others' first tokens must come about as soon as before."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import RunFolder, ServerState
from support.hostile import BODIES, KINDS, p99_ms, quiet

TESTS = Path(__file__).parents[1]
MAX_RATIO = 3.0
STATUSES = {"200", "400", "413", "503"}


WITH_TRITON = pytest.param("triton", marks=(pytest.mark.triton, pytest.mark.slow))


@pytest.fixture(scope="module", params=["direct", WITH_TRITON])
def server(request, engine_folder) -> Iterator[ServerState]:
    if request.param == "triton":
        request.getfixturevalue("triton_runtime")
    options = ("--threads", "1", *(("--no-triton",) if request.param == "direct" else ()))
    with serve_engine(engine_folder, *options, drain_s=5) as state:
        yield state


def hostile(server: ServerState, seconds: float, kind: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "support.hostile", server.openai_url, str(seconds), kind]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def restarts(server: ServerState) -> dict[str, int]:
    state = RunFolder(Path(server.run_folder)).read_state()
    assert state is not None
    return state.restarts


@pytest.mark.parametrize(
    "kind",
    [k if i % 12 == 0 else pytest.param(k, marks=pytest.mark.slow) for i, k in enumerate(KINDS)],
)
def test_a_hostile_client_is_answered_and_harms_nobody(server, kind) -> None:
    """Without a clock: its answers have a meaning, others' are right, nothing is restarted."""
    client = hostile(server, 1, kind)
    assert len(asyncio.run(quiet(server.openai_url, 1))) >= 1
    output, _ = client.communicate(timeout=120)
    assert client.returncode == 0
    print(kind, output.strip())
    if kind in BODIES:
        assert set(json.loads(output)) <= STATUSES
    assert set(restarts(server).values()) == {0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_others_first_token_comes_within_three_times_the_quiet_time(server, kind) -> None:
    url = server.openai_url
    before = asyncio.run(quiet(url, 20))
    client = hostile(server, 60, kind)
    during = asyncio.run(quiet(url, 58))
    output, _ = client.communicate(timeout=180)
    after = asyncio.run(quiet(url, 10))
    quiet_ms, loaded_ms = p99_ms(before + after), p99_ms(during)
    print(
        json.dumps(
            {
                "kind": kind,
                "triton": server.grpc_url is not None,
                "quiet_p99_ms": round(quiet_ms, 1),
                "p99_ms": round(loaded_ms, 1),
                "requests": len(during),
                "ends": output.strip(),
            }
        )
    )
    assert loaded_ms < MAX_RATIO * quiet_ms
    assert set(restarts(server).values()) == {0}
