"""Many streams with cancels, stalls, disconnects and oversize prompts: nothing mixed, nothing left.

The trained model runs, greedily; every finished answer must equal its solo run.
"""

import os
import re
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.generation import collect, generate
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.engine.probe import ask_engine
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import RunFolder, ServerState
from support.storm import MAX_TOKENS, Storm, prompts

pytestmark = pytest.mark.triton
TESTS = Path(__file__).parents[1]


def resources(server: ServerState) -> dict[str, tuple[int, int, int]]:
    """Return threads, open files and resident bytes of each process."""
    found = {}
    for name, pid in server.processes.items():
        for process in (psutil.Process(pid), *psutil.Process(pid).children()):
            key = f"{name}/{process.name()}"
            found[key] = (process.num_threads(), process.num_fds(), process.memory_info().rss)
    return found


def wait_until(condition: Callable[[], Any], timeout_s: float) -> float:
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() - start_s < timeout_s, "it did not happen in time"
        time.sleep(0.05)
    return time.monotonic() - start_s


def wait_idle(server: ServerState) -> None:
    """Wait until no slot and no place in the queue is taken."""
    socket = RunFolder(Path(server.run_folder)).engine_socket

    def is_idle() -> bool:
        status = ask_engine(socket, "status")
        return status is not None and not (status["num_running"] or status["num_waiting"])

    wait_until(is_idle, 10)


def overheads_ms(storm: Storm, stamps: Path) -> list[float]:
    """Return, for each token, how long after the engine had it the client had it."""
    found = []
    for line in stamps.read_text().splitlines():
        seed, count, there_s = line.split()
        arrival_s = storm.arrivals.get((int(seed), int(count))) if seed != "None" else None
        if arrival_s is not None:
            found.append((arrival_s - float(there_s)) * 1e3)
    return sorted(found)


@pytest.mark.parametrize(
    "seconds", [pytest.param(s, marks=pytest.mark.slow) for s in (20, 60, 600)]
)
def test_a_storm_of_clients(engine_folder, triton_runtime, solo, tmp_path, seconds) -> None:
    alone = {p: solo(p, max_tokens=MAX_TOKENS, ignore_eos=True)["text"] for p in prompts()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        patch.setenv("STAMPS", str(tmp_path / "stamps"))
        options = ("--threads", "1", "--engine-module", "support.stamping_host")
        with serve_engine(engine_folder, *options, drain_s=5) as server:
            Storm(server.openai_url, alone).run(10)  # to its full size, before it is measured
            (tmp_path / "stamps").write_text("")
            time.sleep(2)
            before = resources(server)
            storm = Storm(server.openai_url, alone)
            storm.run(seconds)
            assert storm.ends["whole"] > 50 and storm.ends["cancel"] > 10
            wait_idle(server)
            time.sleep(2)
            report(storm, tmp_path / "stamps")
            check_prefixes_were_kept(server)
            check_nothing_is_left(before, resources(server))
            check_state(server, engine_restarts=0)
            kill_the_engine_in_a_storm(server, alone)
            check_state(server, engine_restarts=1)


@pytest.mark.slow
def test_a_storm_over_guesses(tmp_path: Path) -> None:
    """The hybrid on the native engine: answers are those of an engine that guesses nothing."""
    spec = BuildSpec("native", precision=Precision.INT8_WO, limits=Limits(8, 256, 32))
    build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)
    opened = open_engine(tmp_path / "e", OpenOptions(1, speculate="off"))
    assert opened.tokenizer is not None
    params = SamplingParams(max_tokens=MAX_TOKENS, ignore_eos=True)
    alone = {}
    for prompt in prompts():
        ids = tuple(opened.tokenizer.encode(prompt))
        alone[prompt] = collect(list(generate(opened.scheduler(), ids, params)), len(ids))["text"]
    opened.engine.close()
    options = ("--threads", "1", "--no-triton", "--speculate", "8")
    with serve_engine(tmp_path / "e", *options, drain_s=5) as server:
        storm = Storm(server.openai_url, alone)
        storm.run(20)
        assert storm.ends["whole"] > 50 and storm.ends["cancel"] > 10
        wait_idle(server)
        check_prefixes_were_kept(server)
        text = httpx.get(server.openai_url.removesuffix("/v1") + "/metrics").text
        drafted, accepted = (
            float(re.findall(rf"^nemotrt_speculation_{name}_total (\S+)$", text, re.MULTILINE)[0])
            for name in ("drafted_tokens", "accepted_tokens")
        )
        print(dict(storm.ends), drafted, accepted)
        assert 1000 < accepted <= drafted


def report(storm: Storm, stamps: Path) -> None:
    overheads = overheads_ms(storm, stamps)
    assert len(overheads) > 1000
    percent = statistics.quantiles(overheads, n=100)
    print(
        f"{dict(storm.ends)}; a token reached its client {percent[49]:.1f} ms (p50), "
        f"{percent[98]:.1f} ms (p99) after the engine had it; {len(overheads)} tokens"
    )


def check_prefixes_were_kept(server: ServerState) -> None:
    """The storm's prompts come again and again; every answer was equal to its solo run."""
    text = httpx.get(server.openai_url.removesuffix("/v1") + "/metrics").text
    found = {
        name: float(re.findall(rf"^nemotrt_prefix_cache_{name} (\S+)$", text, re.MULTILINE)[0])
        for name in ("hit_tokens_total", "prompt_tokens_total", "bytes", "limit_bytes")
    }
    print(found)
    assert found["hit_tokens_total"] > 0.2 * found["prompt_tokens_total"]
    assert 0 < found["bytes"] <= found["limit_bytes"]


def check_nothing_is_left(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, (threads, files, rss) in after.items():
        print(name, before[name], after[name])
        assert threads <= before[name][0] + 8, name
        assert files <= before[name][1] + 16, name
        assert rss <= before[name][2] * 1.25 + (64 << 20), name


def check_state(server: ServerState, *, engine_restarts: int) -> None:
    """Nothing but the engine was ever restarted."""
    state = RunFolder(Path(server.run_folder)).read_state()
    assert state is not None
    assert state.restarts == {"engine": engine_restarts, "triton": 0, "front": 0}


def kill_the_engine_in_a_storm(server: ServerState, alone: dict[str, str]) -> None:
    """Clients hear of it, the server is ready again within seconds, and answers are right."""
    storm = Storm(server.openai_url, alone, may_fail=True)
    seconds: list[float] = []

    def kill() -> None:
        time.sleep(2)
        os.kill(server.processes["engine"], signal.SIGKILL)
        health = server.openai_url.removesuffix("/v1") + "/health"
        wait_until(lambda: not httpx.get(health, timeout=30).is_success, 10)
        seconds.append(wait_until(lambda: httpx.get(health, timeout=30).is_success, 60))

    killer = threading.Thread(target=kill)
    killer.start()
    storm.run(15)
    killer.join()
    print(f"{dict(storm.ends)}; ready again {seconds[0]:.1f} s after the engine was killed")
    assert storm.ends["lost"] and storm.ends["whole"]
    wait_idle(server)
    calm = Storm(server.openai_url, alone)
    calm.run(2)
    assert calm.ends["whole"]
