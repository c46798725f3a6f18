"""The engine in a process that the model itself starts, for a Triton without our supervisor."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 30.0
CALM_S = 60.0  # up this long, the process has earned a quick restart again
POLL_S = 0.1
DRAIN_S = 30.0
STOP_MARGIN_S = 10.0


class EngineProcess:
    """Keeps the engine's process running, at a Unix socket that is this user's alone.

    It ends with this process, whatever ends that: it holds the other end of its standard input.
    """

    def __init__(self, engine: str, python: str, options: str = "") -> None:
        """Start it.

        Args:
            engine: the engine directory.
            python: an interpreter that has nemotrt.
            options: further options of `nemotrt.serve.engine.host`.
        """
        self._folder = tempfile.mkdtemp(prefix="nemotrt-")
        self.socket_path = os.path.join(self._folder, "engine.sock")
        host = [python, "-m", "nemotrt.serve.engine.host", engine, "--socket", self.socket_path]
        host += ["--drain-s", str(DRAIN_S), *shlex.split(options)]
        self._command = [
            python,
            "-m",
            "nemotrt.wire.parent_death",
            shutil.which(python) or python,
        ]
        self._command += host[1:]
        self._lifeline, self._held = os.pipe()
        self._is_closing = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch, name="engine process", daemon=True)

    def wait_ready(self) -> None:
        """Wait until the engine answers, then watch it.

        Raises:
            RuntimeError: the process ended first; its last words are in Triton's log.
        """
        while not os.path.exists(self.socket_path):
            code = self._process.poll()
            if code is not None:
                self.close()
                raise RuntimeError(
                    f"the engine's process ended with exit code {code}; the log says why: "
                    f"{shlex.join(self._command)}"
                )
            time.sleep(POLL_S)
        self._thread.start()

    def close(self) -> None:
        """Let it drain, then end its whole group."""
        self._is_closing.set()
        self._process.terminate()
        try:
            self._process.wait(DRAIN_S + STOP_MARGIN_S)
        except subprocess.TimeoutExpired:
            self._kill_group()
        if self._thread.is_alive():
            self._thread.join()
        self._kill_group()
        os.close(self._held)
        os.close(self._lifeline)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, stdin=self._lifeline, start_new_session=True)

    def _watch(self) -> None:
        """Start the process again whenever it has ended, later each time."""
        backoff_s, started_s = FIRST_BACKOFF_S, time.monotonic()
        while True:
            code = self._process.wait()
            if self._is_closing.is_set():
                return
            self._kill_group()
            if time.monotonic() - started_s > CALM_S:
                backoff_s = FIRST_BACKOFF_S
            with contextlib.suppress(OSError):  # the log's disk may be full
                print(f"the engine's process ended with code {code}; restarting it", flush=True)
            if self._is_closing.wait(backoff_s):
                return
            backoff_s, started_s = min(2 * backoff_s, MAX_BACKOFF_S), time.monotonic()
            try:
                self._process = self._start()
            except OSError:
                continue  # no room for a process now; its forerunner's end is seen again
            if self._is_closing.is_set():
                self._process.terminate()  # close() has seen its forerunner

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
