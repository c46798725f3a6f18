"""A process in a session of its own, with its output in a log file."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

from nemotrt.errors import ChildProcessFailedError

NUM_LOG_LINES = 15
KILL_WAIT_S = 5.0


class ChildProcess:
    """Started at once; its whole process group is ended with it."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        """Start `command`; `environment` is laid over ours."""
        self.command = command
        self.log = log
        self.started_s = time.monotonic()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

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
        if self.exit_code is None:
            self._process.terminate()

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
        self.wait(KILL_WAIT_S)

    def failure(self) -> ChildProcessFailedError:
        """Return the error that says what ran, how it ended, and what it said last."""
        code = self.exit_code
        how = "did not become ready in time" if code is None else f"ended with exit code {code}"
        lines = last_lines(self.log, NUM_LOG_LINES)
        shown = "".join(f"\n  {line}" for line in lines)
        return ChildProcessFailedError(
            f"{shlex.join(self.command)}\n{how}. Its log is {self.log}; the last lines:{shown}"
        )


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a log."""
    text = path.read_bytes()[-(1 << 16) :].decode(errors="replace")
    return text.splitlines()[-count:]
