"""A process in a session of its own, with its output in a log file, or copied line by line.

All of its group ends with us, however we end: see `parent_death`.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import IO

from nemotrt.errors import ChildProcessFailedError
from nemotrt.serve.processes.going_on import going_on
from nemotrt.wire import parent_death

NUM_LOG_LINES = 15
MAX_LOG_LINES = 400
MAX_FAULTS = 5  # of lines before the last that say what is wrong
FAULT = re.compile(r"\b(ERROR|CRITICAL)\b|\b[EF]\d{4} |\[err\]")  # ours, Triton's, libevent's
MAX_LOG_BYTES = 1 << 16  # that are read for them
MAX_LINE_BYTES = 1 << 16  # a longer one is copied in pieces
COPY_END_S = 1.0  # for the last lines of a process that has ended
Copy = Callable[[bytes], None]
KILL_WAIT_S = 5.0


class ChildProcess:
    """Started at once; its whole process group is ended with it."""

    def __init__(
        self,
        command: list[str],
        log: Path,
        environment: dict[str, str],
        *,
        ends_with_us: bool = True,
        copy: Copy | None = None,
    ) -> None:
        """Start `command`; `environment` is laid over ours.

        With `copy`, which must not raise, each line goes there, from a thread; else into `log`.
        """
        self.command = command
        tied = [sys.executable, "-IS", parent_death.__file__, *command]
        self.log = log
        self.started_s = time.monotonic()
        with ExitStack() as stack:
            output: IO[bytes] | int = subprocess.PIPE if copy else subprocess.DEVNULL
            if copy is None:
                with going_on(f"write {log}"):  # a server without logs is better than none
                    output = stack.enter_context(log.open("ab"))
            self._process = subprocess.Popen(
                tied if ends_with_us else command,
                stdin=_lifeline() if ends_with_us else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self._copying = threading.Thread(
            target=_copy_lines, args=(self._process.stdout, copy), name="log", daemon=True
        )
        self._copying.start()

    @property
    def pid(self) -> int:
        """The process's id, and its group's."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, minus the signal if one ended it; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the process itself, not its group, to end."""
        self.notify(signal.SIGTERM)

    def notify(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, if it still runs."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Whether the process ends within `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill_group(self) -> None:
        """Kill whatever is left of the process group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        if self.wait(KILL_WAIT_S):
            _reap_group(self.pid)
        self._copying.join(COPY_END_S)

    def failure(self) -> ChildProcessFailedError:
        """Return the error that says what ran, how it ended, and what it said last."""
        code = self.exit_code
        how = "did not become ready in time" if code is None else f"ended with exit code {code}"
        if code is not None:
            self._copying.join(COPY_END_S)  # its descendants may have the pipe still
        lines = telling_lines(self.log)
        shown = "".join(f"\n  {line}" for line in lines)
        return ChildProcessFailedError(
            f"{shlex.join(self.command)}\n{how}. Its log is {self.log}; the last lines:{shown}"
        )


def _copy_lines(output: IO[bytes] | None, copy: Copy | None) -> None:
    """Copy what a process writes until nobody has its output any more."""
    if output is None or copy is None:
        return
    with output:
        while line := output.readline(MAX_LINE_BYTES):
            copy(line)


@cache
def _lifeline() -> int:
    """Return the reading end of a pipe; the other end is this process's alone, to its end."""
    reading, _ = os.pipe()
    return reading


def _reap_group(group: int) -> None:
    """Bury what of a killed group has become our child: we may be a container's first process."""
    try:
        while os.waitpid(-group, 0)[0]:
            pass
    except ChildProcessError:
        return


def telling_lines(path: Path) -> list[str]:
    """Return the last lines of a log, after those before them that say what is wrong.

    Triton says why a model does not load before tables and its own end.
    """
    lines = last_lines(path, MAX_LOG_LINES)
    before = [line for line in lines[:-NUM_LOG_LINES] if FAULT.search(line)]
    return [*before[-MAX_FAULTS:], *lines[-NUM_LOG_LINES:]]


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a log; none of one that can't be read."""
    text = b""
    with going_on(f"read {path}"), path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - MAX_LOG_BYTES, 0))
        text = stream.read()
    return text.decode(errors="replace").splitlines()[-count:]
