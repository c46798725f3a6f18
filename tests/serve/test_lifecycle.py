"""What the supervisor must survive: crashes, stops under load, clients that go."""

import asyncio
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from nemotrt.serve.engine.probe import ask_engine
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import RunFolder, ServerState
from nemotrt.serve.supervision.supervisor import Supervisor

pytestmark = pytest.mark.triton
TESTS = Path(__file__).parents[1]
Start = Callable[..., AbstractContextManager[ServerState]]
PROMPT = "SAY[[" + "a long answer, " * 60 + "]]SAY:"


@pytest.fixture(scope="module")
def start(engine_folder, triton_runtime) -> Iterator[Start]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)

        def start(*options: str, step_ms: int = 20, **more: Any) -> Any:
            patch.setenv("SCRIPTED_STEP_MS", str(step_ms))
            scripted = ("--engine-module", "support.scripted_host")
            return serve_engine(engine_folder, *scripted, *options, **more)

        yield start


@pytest.fixture(scope="module")
def full(start) -> Iterator[ServerState]:
    """The whole stack; the tests that share it leave it running."""
    with start(drain_s=2) as server:
        yield server


@pytest.fixture(scope="module")
def direct(start) -> Iterator[ServerState]:
    """Without Triton, and with a short queue."""
    options = ("--no-triton", "--max-queue-size", "9", "--max-queue-s", "3")
    with start(*options, drain_s=2) as server:
        yield server


def ask(server: ServerState, **body: Any) -> httpx.Response:
    body = {"model": "llm", "prompt": PROMPT, "max_tokens": 1000} | body
    return httpx.post(f"{server.openai_url}/completions", json=body, timeout=60)


def engine(server: ServerState) -> dict[str, Any]:
    return ask_engine(RunFolder(Path(server.run_folder)).engine_socket, "status") or {}


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> float:
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() - start_s < timeout_s, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - start_s


def in_threads(count: int, work: Callable[[int], Any]) -> tuple[list[threading.Thread], list[Any]]:
    results: list[Any] = [None] * count

    def run(index: int) -> None:
        try:
            results[index] = work(index)
        except httpx.HTTPError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def state_now(server: ServerState) -> Any:
    return RunFolder(Path(server.run_folder)).read_state()


def is_ready(server: ServerState) -> bool:
    state = state_now(server)
    return state is not None and state.status == "ready"


def child_stub(server: ServerState) -> psutil.Process:
    children = psutil.Process(server.processes["triton"]).children(recursive=True)
    [stub] = [child for child in children if "stub" in child.name()]
    return stub


def test_a_killed_engine_fails_its_requests_and_comes_back(full) -> None:
    threads, results = in_threads(4, lambda _: ask(full))
    wait_until(lambda: engine(full).get("num_running") == 4)
    before = state_now(full)
    os.kill(before.processes["engine"], signal.SIGKILL)
    for thread in threads:
        thread.join(10)
    assert [r.status_code for r in results] == [500] * 4
    assert "engine process ended" in results[0].json()["error"]["message"]
    seconds = wait_until(lambda: is_ready(full) and ask(full, max_tokens=4).is_success)
    assert seconds < 15
    after = state_now(full)
    assert after.restarts["engine"] == before.restarts["engine"] + 1
    assert after.processes["triton"] == before.processes["triton"]


def test_a_dead_stub_is_seen_and_triton_restarted(full) -> None:
    before = state_now(full)
    child_stub(before).kill()
    wait_until(lambda: state_now(full).restarts["triton"] == before.restarts["triton"] + 1)
    wait_until(lambda: is_ready(full) and ask(full, max_tokens=4).is_success)
    assert state_now(full).processes["engine"] == before.processes["engine"]


@pytest.mark.parametrize("option", [(), ("--no-triton",)], ids=["triton", "direct"])
def test_sigterm_under_load_ends_every_accepted_request(start, option) -> None:
    with start(*option, step_ms=5, drain_s=20) as server:
        threads, results = in_threads(6, lambda _: ask(server))
        wait_until(lambda: engine(server).get("num_running") == 6)
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: (s := state_now(server)) is None or s.status == "stopping")
        late = in_threads(1, lambda _: ask(server))
        for thread in (*threads, *late[0]):
            thread.join(40)
        whole = "a long answer, " * 60
        assert [r.json()["choices"][0]["text"] for r in results] == [whole] * 6
        refused = late[1][0]
        assert isinstance(refused, httpx.ConnectError) or refused.status_code == 503
        wait_until(lambda: not server.is_alive)


@pytest.mark.parametrize(
    "option",
    [
        pytest.param((), id="triton"),
        pytest.param(("--no-triton",), id="direct", marks=pytest.mark.slow),
    ],
)
def test_health_says_draining_from_the_signal_to_the_end(start, option) -> None:
    with start(*option, step_ms=20, drain_s=20) as server:
        threads, results = in_threads(2, lambda _: ask(server, max_tokens=250))
        wait_until(lambda: engine(server).get("num_running") == 2)
        root = server.openai_url.removesuffix("/v1")
        assert httpx.get(f"{root}/health", timeout=10).json() == {"status": "ready"}
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{root}/health", timeout=10).status_code == 503)
        refused = ask(server)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        seen = []
        while server.is_alive:
            try:
                for path in ("/health", "/health/ready", "/health/live"):
                    answer = httpx.get(f"{root}{path}", timeout=10)
                    seen.append((path, answer.status_code, answer.json()["status"]))
            except httpx.TransportError:
                break  # the front itself has ended, the last of all
            time.sleep(0.05)
        for thread in threads:
            thread.join(40)
        assert [r.status_code for r in results] == [200, 200]
        assert set(seen) == {
            ("/health", 503, "draining"),
            ("/health/ready", 503, "draining"),
            ("/health/live", 200, "live"),
        }


@pytest.mark.slow
def test_health_says_draining_where_the_engine_alone_is_told_to_stop(start) -> None:
    with start("--no-triton", step_ms=20, drain_s=20) as server:
        threads, _ = in_threads(1, lambda _: ask(server, max_tokens=250))
        wait_until(lambda: engine(server).get("num_running") == 1)
        os.kill(server.processes["engine"], signal.SIGTERM)
        health = f"{server.openai_url.removesuffix('/v1')}/health"
        wait_until(lambda: httpx.get(health, timeout=10).json() == {"status": "draining"})
        assert ask(server).json()["error"]["code"] == "shutting_down"
        threads[0].join(40)


def test_what_outlives_the_drain_is_told_why(start) -> None:
    with start("--no-triton", step_ms=100, drain_s=0.5) as server:
        threads, results = in_threads(3, lambda _: ask(server))
        wait_until(lambda: engine(server).get("num_running") == 3)
        os.kill(server.pid, signal.SIGTERM)
        for thread in threads:
            thread.join(20)
        assert {(r.status_code, r.json()["error"]["code"]) for r in results} == {
            (503, "shutting_down")
        }


def test_nothing_is_left_of_a_killed_supervisor(start) -> None:
    with start() as server:
        processes = [psutil.Process(pid) for pid in server.processes.values()]
        processes.append(child_stub(server))
        processes[-1].suspend()  # as good as a stub whose threads all wait for its GIL
        os.kill(server.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
    with start("--no-triton"):  # the next server removes what a killed one left in shared memory
        assert not list(Path("/dev/shm").glob(f"nemotrt_{server.pid}_*"))


def test_an_orderly_stop_leaves_nothing(start) -> None:
    with start() as server:
        assert ask(server, max_tokens=3).is_success
        processes = [psutil.Process(pid) for pid in server.processes.values()]
        processes.append(child_stub(server))
    assert not psutil.wait_procs(processes, timeout=10)[1]
    assert not list(Path("/dev/shm").glob(f"nemotrt_{server.pid}_*"))
    assert not Path(server.run_folder).exists()


@pytest.mark.parametrize("kind", ["full", "direct"])
def test_a_client_that_goes_frees_its_slot(request, kind) -> None:
    server = request.getfixturevalue(kind)

    async def leave_after(seconds: float, *, stream: bool) -> None:
        async with httpx.AsyncClient(base_url=server.openai_url, timeout=30) as client:
            body = {"model": "llm", "prompt": PROMPT, "max_tokens": 1000, "stream": stream}
            asking = asyncio.create_task(client.post("completions", json=body))
            await asyncio.sleep(seconds)
            assert not asking.done()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def crowd() -> None:
        waits = [(0.2 + 0.05 * i, i % 2 == 0) for i in range(12)]
        await asyncio.gather(*(leave_after(s, stream=is_on) for s, is_on in waits))

    asyncio.run(crowd())
    wait_until(lambda: engine(server)["num_running"] + engine(server)["num_waiting"] == 0, 3)


def test_the_queue_is_bounded_in_size_and_time(direct) -> None:
    threads, _ = in_threads(8, lambda _: ask(direct))
    wait_until(lambda: engine(direct).get("num_running") == 8)
    waiting, late = in_threads(9, lambda _: ask(direct))
    wait_until(lambda: engine(direct)["num_waiting"] == 9)
    answer = ask(direct)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
    assert answer.headers["retry-after"] == "1"
    for thread in (*waiting, *threads):
        thread.join(20)
    assert [a.json()["error"]["code"] for a in late] == ["queue_timeout"] * 9


def test_priority_goes_before_arrival(start) -> None:
    with start("--no-triton", "--max-queue-size", "9", "--max-queue-s", "60") as server:
        threads, _ = in_threads(8, lambda _: ask(server, max_tokens=300))
        wait_until(lambda: engine(server).get("num_running") == 8)
        ends: dict[int, float] = {}

        def timed(priority: int) -> None:
            if ask(server, max_tokens=20, priority=priority).is_success:
                ends[priority] = time.monotonic()

        low, _ = in_threads(8, lambda i: timed(100 + i))
        wait_until(lambda: engine(server)["num_waiting"] == 8)
        high, _ = in_threads(1, lambda i: timed(-1))
        wait_until(lambda: engine(server)["num_waiting"] == 9)
        for thread in (*threads, *low, *high):
            thread.join(60)
        assert ends[-1] < ends[107]


def test_a_deadline_ends_a_request(direct) -> None:
    answer = ask(direct, timeout_ms=400)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    wait_until(lambda: engine(direct)["num_running"] == 0, 2)


def test_only_loopback_ports_are_open(full) -> None:
    now = state_now(full)
    found = set()
    for pid in (now.pid, *now.processes.values(), child_stub(now).pid):
        for connection in psutil.Process(pid).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add((connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port))
    urls = (full.openai_url, full.http_url, full.metrics_url, f"//{full.grpc_url}")
    assert found == {("127.0.0.1", httpx.URL(url or "").port) for url in urls}


def test_serve_json_keeps_the_resolved_configuration(direct) -> None:
    config = json.loads((Path(direct.run_folder) / "serve.json").read_text())
    assert config["queue"] == {"max_queue_size": 9, "max_queue_s": 3.0}


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    wait_until(lambda: threading.active_count() <= before, 10)


def test_a_signal_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It may come in the midst of a line, and Python refuses to write into one: code 1 once."""
    supervisor = object.__new__(Supervisor)
    with caplog.at_level(logging.DEBUG):
        supervisor._ask_stop(signal.SIGINT, None)
    assert supervisor._is_stopping and supervisor._signal is signal.SIGINT
    assert not caplog.records
