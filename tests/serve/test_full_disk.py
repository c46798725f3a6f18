"""A disk that is full, or any file operation that fails, ends no server that runs."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import RunFolder, is_alive

# A supervisor over two stand-ins for services; each operation on its folder is counted once a line
# says so, and the one with that number fails ("all" of them, "none" of them).
SWEPT = """
import errno, os, pathlib, sys, threading
from nemotrt.serve.supervision import service
from nemotrt.serve.supervision.log_follower import LogFollower
from nemotrt.serve.processes.run_folder import create_run_folder
from nemotrt.serve.processes.options import FrontOptions
from nemotrt.serve.supervision.serve_spec import ServeSpec
from nemotrt.serve.supervision.supervisor import Supervisor

service.MAX_BACKOFF_S = service.FIRST_BACKOFF_S = 0.02
folder = create_run_folder(pathlib.Path(sys.argv[2]))
spec = ServeSpec(pathlib.Path(sys.argv[1]), FrontOptions(port=0), use_triton=False)
supervisor = Supervisor(spec, folder)

def stand_in(name):
    code = "import time; print('up', flush=True); time.sleep(600)"
    return service.Service(service.ServiceSpec(
        name=name, command=lambda: [sys.executable, "-ISc", code], log=folder.log(name),
        is_ready=lambda: True, is_well=lambda: True, environment={},
        after=lambda: (folder.path / f"{name}.sock").unlink(missing_ok=True)))

supervisor.services = [stand_in("engine"), stand_in("front")]
supervisor._logs = LogFollower(s.spec.log for s in supervisor.services)
wanted, count = "none", 0
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.symlink", "subprocess.Popen", "os.fork"}

def fail(event, arguments):
    global count
    if event not in EVENTS:
        return
    is_ours = event in ("subprocess.Popen", "os.fork") or str(folder.path) in str(arguments[0])
    if not is_ours or wanted == "none":
        return
    count += 1
    if wanted in ("all", str(count - 1)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[:1]))

def listen():
    global wanted, count
    for line in sys.stdin:
        print(count, flush=True)
        wanted, count = line.strip(), 0

sys.addaudithook(fail)
threading.Thread(target=listen, daemon=True).start()
supervisor.run(on_ready=lambda state: print("ready", flush=True), on_log=lambda line: None)
print("stopped", flush=True)
"""


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.01)


def test_each_file_operation_of_a_restart_fails_in_turn(engine_folder, tmp_path) -> None:
    command = [sys.executable, "-c", SWEPT, str(engine_folder), str(tmp_path / "r")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1) as server:
        try:
            sweep(server, RunFolder(tmp_path / "r"))
        finally:
            server.kill()


def sweep(server: subprocess.Popen[str], folder: RunFolder) -> None:
    assert server.stdin is not None and server.stdout is not None
    stdin, stdout = server.stdin, server.stdout
    assert stdout.readline() == "ready\n"

    def tell(what: str) -> int:
        stdin.write(f"{what}\n")
        return int(stdout.readline())

    def engine() -> int:
        children = [c for c in psutil.Process(server.pid).children() if c.pid != front]
        return next((child.pid for child in children if is_alive(child.pid)), 0)

    def restart() -> None:
        before = engine()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: engine() not in (0, before))

    front = folder.read_state().processes["front"]  # type: ignore[union-attr]
    tell("all counted but none")  # a number that no operation has
    restart()
    time.sleep(0.2)
    num_operations = tell("none")
    assert num_operations > 4  # the log, the process, the state
    for number in range(num_operations + 2):
        tell(str(number))
        restart()
        tell("none")
        assert server.poll() is None, f"operation {number} ended the server"
        wait_until(lambda: folder.read_state().processes.get("engine") == engine())  # type: ignore[union-attr]
    tell("all")
    os.kill(engine(), signal.SIGKILL)
    time.sleep(0.5)
    assert server.poll() is None
    tell("none")
    wait_until(lambda: folder.read_state().processes.get("engine", 0) == engine() != 0)  # type: ignore[union-attr]
    tell("all")
    server.terminate()
    assert stdout.readline() == "stopped\n"
    assert server.wait(20) == 0


def test_a_server_whose_files_may_not_grow_restarts_its_engine(engine_folder) -> None:
    """Every write to a file fails in all of its processes, as on a full disk."""
    with serve_engine(engine_folder, "--no-triton", "--threads", "1", drain_s=2) as server:
        processes = (server.pid, *server.processes.values())
        for pid in processes:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        os.kill(server.processes["engine"], signal.SIGKILL)
        body = {"model": "llm", "prompt": "The", "max_tokens": 3}

        def answers() -> bool:
            return httpx.post(f"{server.openai_url}/completions", json=body, timeout=60).is_success

        wait_until(lambda: not answers())
        wait_until(answers)
        assert server.is_alive
        stale = json.loads((Path(server.run_folder) / "server.json").read_text())
        assert stale["restarts"]["engine"] == 0  # what it says can't be brought up to date
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (-1, -1))
        state = RunFolder(Path(server.run_folder))
        wait_until(lambda: state.read_state().restarts["engine"] == 1)  # type: ignore[union-attr]
