"""A server for the length of a `with` block, in processes of its own."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemotrt.serve.processes.child_process import ChildProcess
from nemotrt.serve.processes.run_folder import RunFolder, ServerState

POLL_S = 0.05
START_TIMEOUT_S = 900.0
STOP_MARGIN_S = 60.0


@contextmanager
def serve_engine(
    engine: Path, *options: str, start_timeout_s: float = START_TIMEOUT_S, drain_s: float = 30.0
) -> Iterator[ServerState]:
    """Yield the state (the URLs) of a ready server on free ports; it is stopped afterwards.

    Args:
        engine: an engine directory.
        options: further options of `nemotrt serve ENGINE`, such as "--threads", "1".
        start_timeout_s: how long the start may take.
        drain_s: how long requests in flight may go on at the end.

    Raises:
        ChildProcessFailedError: the server did not start; the message has its last lines.
    """
    folder = RunFolder(Path(tempfile.mkdtemp(prefix="nemotrt-")))
    command = [sys.executable, "-m", "nemotrt", "serve", str(engine.absolute())]
    command += ["--stop-with-parent", "--run-dir", str(folder.path), "--drain-s", str(drain_s)]
    command += ["--free-ports", *options]
    server = ChildProcess(
        command, folder.log("serve"), {"PYTHONUNBUFFERED": "1"}, ends_with_us=False
    )
    has_failed = False
    try:
        yield _wait_ready(server, folder, start_timeout_s)
    except BaseException:
        has_failed = True
        raise
    finally:
        server.terminate()
        server.wait(drain_s + STOP_MARGIN_S)
        server.kill_group()
        if not has_failed:
            shutil.rmtree(folder.path)  # after a failure the logs are what is looked for


def wait_stopped(state: ServerState, timeout_s: float) -> bool:
    """Ask a server to stop, if it still runs; whether it has ended within `timeout_s`."""
    if state.is_alive:  # else the id may be another process's by now
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while state.is_alive and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return not state.is_alive


def _wait_ready(server: ChildProcess, folder: RunFolder, timeout_s: float) -> ServerState:
    """Return the server's state once it is ready."""
    deadline = time.monotonic() + timeout_s
    while server.exit_code is None and time.monotonic() < deadline:
        state = folder.read_state()
        if state is not None and state.status == "ready":
            return state
        time.sleep(POLL_S)
    raise server.failure()
