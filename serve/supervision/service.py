"""One supervised process: how it is started, and how to know that it is ready and well."""

import enum
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nemotrt.serve.processes.child_process import ChildProcess, Copy
from nemotrt.serve.processes.going_on import going_on
from nemotrt.serve.triton.model.engine_process import CALM_S, FIRST_BACKOFF_S, MAX_BACKOFF_S

MAX_FAILED_PROBES = 3


class Health(enum.Enum):
    """Where a service is in its life."""

    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A process and its probes; a probe answers within seconds and never raises."""

    name: str
    command: Callable[[], list[str]]
    log: Path
    is_ready: Callable[[], bool]
    is_well: Callable[[], bool]
    environment: dict[str, str]
    start_timeout_s: float = 600.0
    stop_timeout_s: float = 10.0
    is_whole: Callable[[int], bool] = lambda pid: True  # at each tick once ready; costs nothing
    stop_notice: signal.Signals | None = None  # says that the server stops, this service later
    before_stop: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None  # cleans up once the process is gone
    copy: Copy | None = None  # takes its lines; None: they go into `log` as they are


class Service:
    """Keeps one process running; call `tick` a few times per second."""

    def __init__(self, spec: ServiceSpec) -> None:
        """Prepare; nothing runs yet."""
        self.spec = spec
        self.process: ChildProcess | None = None
        self.health = Health.DOWN
        self.num_restarts = 0
        self._num_failed_probes = 0
        self._backoff_s = FIRST_BACKOFF_S
        self._start_at_s = 0.0

    def start(self) -> None:
        """Start the process.

        Raises:
            OSError: the system has no room for another process.
        """
        told = self.spec
        self.process = ChildProcess(told.command(), told.log, told.environment, copy=told.copy)
        self.health = Health.STARTING
        self._num_failed_probes = 0

    def tick(self, *, probe: bool) -> None:
        """See how the process is, and restart it where it is due.

        Raises:
            ChildProcessFailedError: it never became ready, from the first start on.
        """
        process = self.process
        if process is None:
            if time.monotonic() >= self._start_at_s:
                with going_on(f"start {self.spec.name}"):
                    self.start()
                if self.process is None:
                    self._start_at_s = self._next_start_s()
        elif process.exit_code is not None:
            self._restart_later(process)
        elif self.health is Health.STARTING:
            self._see_start(process)
        elif not self.spec.is_whole(process.pid):
            self._restart_later(process)
        elif probe:
            self._probe(process)

    def announce_stop(self) -> None:
        """Tell the process that the server begins to stop."""
        if self.process is not None and self.spec.stop_notice is not None:
            self.process.notify(self.spec.stop_notice)

    def stop(self) -> None:
        """End the process gracefully within its time, then its whole group."""
        if self.process is not None:
            self.spec.before_stop()
            self.process.terminate()
            self.process.wait(self.spec.stop_timeout_s)
            self._bury(self.process)

    def _see_start(self, process: ChildProcess) -> None:
        if self.spec.is_ready():
            self.health = Health.READY
        elif time.monotonic() - process.started_s > self.spec.start_timeout_s:
            self._restart_later(process)

    def _probe(self, process: ChildProcess) -> None:
        """Restart a process that has failed several probes in a row."""
        self._num_failed_probes = 0 if self.spec.is_well() else self._num_failed_probes + 1
        if self._num_failed_probes >= MAX_FAILED_PROBES:
            self._restart_later(process)

    def _restart_later(self, process: ChildProcess) -> None:
        """Bury the process and plan its successor."""
        failure = process.failure()
        is_first_start = self.health is Health.STARTING and self.num_restarts == 0
        self._bury(process)
        if is_first_start:
            raise failure
        now = time.monotonic()
        if now - process.started_s > CALM_S:
            self._backoff_s = FIRST_BACKOFF_S
        self._start_at_s = self._next_start_s()
        self.num_restarts += 1

    def _next_start_s(self) -> float:
        """Return when a start may be tried; each next one is later."""
        at_s = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)
        return at_s

    def _bury(self, process: ChildProcess) -> None:
        process.kill_group()
        with going_on(f"clean up after {self.spec.name}"):
            self.spec.after()
        self.process = None
        self.health = Health.DOWN
