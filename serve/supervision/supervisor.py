"""Starts a server's processes, watches and restarts them, and stops them in order."""

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.artefact.weights import find_weights
from nemotrt.engines.opening import weights_place
from nemotrt.errors import EnvironmentUnfitError, NemotrtError
from nemotrt.serve.front.http.browsers import check_origins, read_hosts
from nemotrt.serve.front.http.tenants import read_tenants
from nemotrt.serve.front.http.tls import check_tls
from nemotrt.serve.logs.files import remove_logs
from nemotrt.serve.processes.going_on import going_on
from nemotrt.serve.processes.run_folder import RunFolder, ServerState, start_ticks
from nemotrt.serve.supervision.log_follower import LogFollower
from nemotrt.serve.supervision.ports import choose_ports
from nemotrt.serve.supervision.serve_spec import ServeSpec
from nemotrt.serve.supervision.server_list import register, unregister
from nemotrt.serve.supervision.service import Health, Service
from nemotrt.serve.supervision.services import engine_service, front_service, triton_service
from nemotrt.serve.triton.address import LOOPBACK, TritonAddress, TritonProtocol
from nemotrt.serve.triton.repository import RepositorySpec, write_repository
from nemotrt.serve.triton.runtime import find_runtime
from nemotrt.serve.triton.server import clean_shared_memory
from nemotrt.serve.triton.workspace import TritonWorkspace, is_plain, plan_workspace

log = logging.getLogger("nemotrt.serve")
TICK_S = 0.05
PROBE_INTERVAL_S = 1.0
WRITE_INTERVAL_S = 1.0  # between two tries to write a state


class Supervisor:
    """One server; its services are in the order in which they start, and stop."""

    def __init__(
        self, spec: ServeSpec, folder: RunFolder, *, stop_with_parent: bool = False
    ) -> None:
        """Check everything that can be checked before a process starts.

        Raises:
            ArtefactError: ENGINE is no engine directory, or its checkpoint has gone or changed.
            EnvironmentUnfitError: there is no Triton runtime, or a port is in use.
            ConfigError: a port is given twice, Triton can't have the model's name, a host or an
                origin is none, or the API keys or the TLS files can't be used.
        """
        manifest, process = read_manifest(spec.engine), spec.process
        spec.check_ports()
        check_tls(spec.front.tls_certificate, spec.front.tls_key)
        read_hosts(spec.front)
        check_origins(spec.front.cors_origin)
        given = process.opening.checkpoint
        weights_place(spec.engine, manifest, given)
        if given is not None:
            found = str(find_weights(spec.engine, manifest, given).path.absolute())
            opening = replace(process.opening, checkpoint=found)
            spec = replace(spec, process=replace(process, opening=opening))
        self.spec = spec
        self.folder = folder
        has_keys = bool(read_tenants(spec.front).keys.digests)
        (self.port,) = choose_ports(spec.front.host, [spec.front.port])
        self.triton: TritonAddress | None = None
        self._workspace: TritonWorkspace | None = None
        self.services = [Service(engine_service(spec, folder))]
        self._repository = RepositorySpec(spec.front.model_name) if spec.use_triton else None
        if spec.use_triton:
            runtime = find_runtime(spec.triton.runtime)
            self._workspace = plan_workspace(runtime)
            sockets = folder.path if is_plain(folder.path) else self._workspace.path
            self.triton = _triton_address(spec, sockets, has_keys=has_keys)
            service = triton_service(spec, folder, runtime, self._workspace, self.triton)
            self.services.append(Service(service))
        self.services.append(Service(front_service(spec, folder, self.triton, self.port)))
        self._logs = LogFollower(service.spec.log for service in self.services)
        self._start_ticks = start_ticks(os.getpid()) or 0
        self._parent = os.getppid() if stop_with_parent else None
        self._on_log: Callable[[str], None] | None = None
        self._is_stopping = False
        self._signal: signal.Signals | None = None
        self._written: ServerState | None = None
        self._write_again_s = 0.0

    def run(
        self,
        on_ready: Callable[[ServerState], None],
        on_log: Callable[[str], None] | None = None,
    ) -> None:
        """Serve until SIGTERM, Ctrl-C or, if asked, the parent's end; then stop everything.

        Args:
            on_ready: called once, when requests are answered.
            on_log: called with each line that a process writes to its log.

        Raises:
            EnvironmentUnfitError: the run folder can't be written.
            ChildProcessFailedError: a process did not become ready at its first start.
            KeyboardInterrupt: it was Ctrl-C, and everything is stopped now.
        """
        self._on_log = on_log
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_stop)
        try:
            self._write_files()
            for service in self.services:
                self._bring_up(service)
            if not self._must_stop:
                self._save_state()
                with going_on("say that the server is ready"):
                    on_ready(self.state)
                self._watch()
        finally:
            self._stop()
            if self._workspace is not None:
                self._workspace.remove()
        if self._signal is signal.SIGINT:
            raise KeyboardInterrupt

    def _write_files(self) -> None:
        """Write what the processes need before they start."""
        try:
            if self._workspace is not None and self._repository is not None:
                self._workspace.create()
                target = self._workspace.repository
                write_repository(self.spec.engine, target, self._repository, force=True)
            if self.triton is not None:
                self.triton.remove_sockets()  # of an earlier server
            (self.folder.path / "serve.json").write_text(self.spec.to_json(), encoding="utf-8")
            clean_shared_memory(os.getpid())
            for service in self.services:
                remove_logs(service.spec.log)  # of an earlier server of that name
            self.folder.write_state(self.state)
        except (OSError, NemotrtError) as error:
            raise EnvironmentUnfitError(
                f"the server's files can't be written: {error}; make room, or give another "
                "--run-dir or TMPDIR."
            ) from error
        register(self.folder)

    @property
    def state(self) -> ServerState:
        """What server.json is to say now."""
        alive = {s.spec.name: s.process.pid for s in self.services if s.process is not None}
        triton = self.triton
        scheme = "http" if self.spec.front.tls_certificate is None else "https"
        return ServerState(
            name=self.folder.path.name,
            pid=os.getpid(),
            start_ticks=self._start_ticks,
            status=self._status,
            engine=str(self.spec.engine.absolute()),
            model_name=self.spec.front.model_name,
            run_folder=str(self.folder.path),
            openai_url=f"{scheme}://{_address(self.spec.front.host)}:{self.port}/v1",
            http_url=triton.url(TritonProtocol.HTTP) if triton else None,
            grpc_url=triton.target(TritonProtocol.GRPC) if triton else None,
            metrics_url=triton.url(TritonProtocol.METRICS, "/metrics") if triton else None,
            processes=alive,
            restarts={s.spec.name: s.num_restarts for s in self.services},
        )

    @property
    def _status(self) -> str:
        if self._is_stopping:
            return "stopping"
        if all(service.health is Health.READY for service in self.services):
            return "ready"
        return "restarting" if any(s.num_restarts for s in self.services) else "starting"

    @property
    def _must_stop(self) -> bool:
        """Whether someone has asked, or the parent that we are to end with has gone."""
        if self._parent is not None and os.getppid() != self._parent:
            log.warning("the process that started the server has gone")
            self._is_stopping = True
        return self._is_stopping

    def _bring_up(self, service: Service) -> None:
        """Start a service and wait until it is ready."""
        if self._must_stop:
            return
        try:
            service.start()
        except OSError as error:
            raise EnvironmentUnfitError(f"{service.spec.name} can't start: {error}.") from error
        while service.health is not Health.READY and not self._must_stop:
            self._save_state()
            self._show_logs()
            time.sleep(TICK_S)
            service.tick(probe=False)
        log.info("%s is up", service.spec.name)

    def _watch(self) -> None:
        """Look at every service until asked to stop."""
        probe_at_s = 0.0
        while not self._must_stop:
            is_due = time.monotonic() >= probe_at_s
            for service in self.services:
                num_restarts = service.num_restarts
                service.tick(probe=is_due)
                if service.num_restarts > num_restarts:
                    log.error("%s is down; restarting it", service.spec.name)
            if is_due:
                probe_at_s = time.monotonic() + PROBE_INTERVAL_S
            self._save_state()
            self._show_logs()
            time.sleep(TICK_S)

    def _stop(self) -> None:
        """Stop the services in the order in which they started: the engine drains first."""
        if self._signal is not None:
            log.info("%s: stopping", self._signal.name)
        self._is_stopping = True
        self._save_state()
        for service in self.services:
            service.announce_stop()
        for service in self.services:
            service.stop()
            self._show_logs()
        with going_on("take the server off the list"):
            unregister(self.folder)
            self.folder.remove_state()

    def _show_logs(self) -> None:
        if self._on_log is not None:
            with going_on("show the logs"):  # our own stderr may be a file on a full disk
                for line in self._logs.lines():
                    self._on_log(line)

    def _save_state(self) -> None:
        """Write what has changed; a disk that is full now may have room at the next look."""
        state = self.state
        if state == self._written or time.monotonic() < self._write_again_s:
            return
        self._write_again_s = time.monotonic() + WRITE_INTERVAL_S
        with going_on("write the server's state"):
            self.folder.write_state(state)
            self._written = state
            self._write_again_s = 0.0

    def _ask_stop(self, number: int, frame: FrameType | None) -> None:
        """Note the signal. It may come in the midst of a line, so nothing is written here."""
        self._signal = signal.Signals(number)
        self._is_stopping = True


def _address(host: str) -> str:
    """Return a host as addresses have it."""
    return f"[{host}]" if ":" in host else host


def _triton_address(spec: ServeSpec, sockets: Path, *, has_keys: bool) -> TritonAddress:
    """Return where Triton is to listen; it checks no keys, so where there are some it is inside."""
    if has_keys:
        return TritonAddress(sockets=sockets)
    http, grpc, metrics = choose_ports(LOOPBACK, spec.triton.ports)
    return TritonAddress((http, grpc, metrics))
