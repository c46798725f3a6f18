"""The engine's own process: `python -m nemotrt.serve.engine.host ENGINE --socket PATH`.

Its environment is ours (numpy 2); Triton's stubs and the front are its clients over a Unix socket
in a folder that only this user can enter. SIGTERM drains; a fault of the engine ends the process,
and the supervisor starts another.
"""

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

import click

from nemotrt.commandline.kinds import PATH
from nemotrt.commandline.options import options_of
from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import TakesAdapters
from nemotrt.engines.runtime.state.kept.options import PrefixCacheOptions
from nemotrt.errors import ChildProcessFailedError
from nemotrt.profiles.hardware.exporter.gpu_gauges import GpuGauges
from nemotrt.serve.engine.connection import ClientConnection
from nemotrt.serve.engine.kept_metrics import kept_text, speculation_text
from nemotrt.serve.engine.loop import BY_DEFAULT, EngineLoop
from nemotrt.serve.engine.preparation import Preparation
from nemotrt.serve.engine.telemetry import info_text
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.logs.options import LogOptions
from nemotrt.serve.logs.outlet import start_logging
from nemotrt.serve.logs.tracing import Tracing, start_tracing
from nemotrt.serve.processes.options import (
    ChunkRate,
    EngineOptions,
    QueueLimits,
)

log = logging.getLogger("nemotrt.engine")
BACKLOG = 64
BY_MACHINE = PrefixCacheOptions()
SWITCH_S = 0.0005  # how long a thread that prepares a request may keep the engine's loop waiting


class EngineHost:
    """Accepts clients for one open engine."""

    def __init__(
        self,
        opened: OpenEngine,
        limits: QueueLimits,
        rate: ChunkRate = BY_DEFAULT,
        target_itl_s: float | None = None,
        prefix_cache: PrefixCacheOptions = BY_MACHINE,
        tracing: Tracing | None = None,
    ) -> None:
        """Prepare the loop; nothing runs yet.

        Raises:
            ConfigError: a target is given to an engine that schedules for itself, or more is to be
                kept than it can, or than there is memory.
        """
        self.opened = opened
        scheduler = opened.keeping_scheduler(prefix_cache, target_itl_s)
        kept_bytes = 0 if scheduler.kept is None else scheduler.kept.limit_bytes
        log.info("kept prefixes have %.2f GiB at most", kept_bytes / 2**30)
        self.loop = EngineLoop(scheduler, limits, self._flush, rate=rate, tracing=tracing)
        tokenizer = opened.tokenizer
        self._grammars = (
            None
            if tokenizer is None
            else GrammarCompiler(tokenizer, opened.engine.vocab_size, opened.end_ids)
        )
        self._preparation = Preparation()
        self._gpus = GpuGauges()
        self._info = info_text(opened.facts)
        self._connections: list[ClientConnection] = []
        self._lock = threading.Lock()

    def metrics(self) -> str:
        """Return the engine's measurements, in Prometheus form."""
        gauges = self.loop.gauges()
        sizes = self.opened.manifest.model
        backend = registry.get(self.opened.manifest.backend)
        element = None if backend is None else backend.state_element_bytes
        if element is not None:
            cache = self.opened.manifest.options.get("kv_cache")
            stored = (item.num_bytes for item in NumberFormat if item.word == cache)
            per_token = float(sizes["kv_elements_per_token"] or 0) * next(stored, element)
            state = float(sizes["ssm_state_elements_per_request"] or 0)
            if self.opened.manifest.options.get("ssm_state") == "float16":
                state /= 2  # counted in elements of the others' size
            state += float(sizes["conv_state_elements_per_request"] or 0)
            gauges["kv_cache_bytes"] = gauges["held_tokens"] * per_token
            gauges["ssm_state_bytes"] = gauges["slots_in_use"] * state * element
        scheduler = self.loop.scheduler
        own = self.loop.telemetry.text(gauges) + kept_text(scheduler.kept)
        own += speculation_text(scheduler.speculation)
        return self._info + own + self._gpus.text()

    def listen(self, path: Path) -> socket.socket:
        """Return a listening socket at `path`, which appears only when it answers."""
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        listener.bind(str(partial))
        partial.chmod(0o600)
        listener.listen(BACKLOG)
        partial.rename(path)
        return listener

    def serve(self, listener: socket.socket) -> None:
        """Accept clients in a thread; return when the loop has ended and everything is sent.

        The engine is closed then: what a backend keeps for the next start is written.
        """
        if self._grammars is not None:
            self._grammars.warm_up()
        self.loop.start()
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        self.loop.join()
        listener.shutdown(socket.SHUT_RDWR)  # who comes from now on is refused, not let wait
        self._preparation.close()
        for connection in self._open_connections():
            connection.close()
        self.opened.engine.close()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return  # shut down: the loop has ended
                connection = ClientConnection(
                    client,
                    self.opened,
                    self.loop,
                    self._forget,
                    self.metrics,
                    self._grammars,
                    self._preparation,
                )
                with self._lock:
                    self._connections.append(connection)
                connection.start()

    def _forget(self, connection: ClientConnection) -> None:
        with self._lock:
            self._connections.remove(connection)

    def _open_connections(self) -> list[ClientConnection]:
        with self._lock:
            return list(self._connections)

    def _flush(self) -> None:
        for connection in self._open_connections():
            connection.flush()


@click.command()
@click.argument("engine", type=PATH)
@click.option("--socket", "socket_path", type=PATH, required=True)
@options_of(EngineOptions)
@options_of(LogOptions)
def main(
    engine: Path, socket_path: Path, engine_options: EngineOptions, log_options: LogOptions
) -> None:
    """Serve ENGINE on a Unix socket until SIGTERM."""
    start_logging("engine", log_options)
    tracing = start_tracing("engine", {"nemotrt.engine": engine.absolute().name})
    sys.setswitchinterval(SWITCH_S)
    told = engine_options
    opened = open_engine(engine, told.opening)
    if isinstance(opened.engine, TakesAdapters) and opened.engine.adapters:
        names, size = ", ".join(opened.engine.adapters), opened.engine.adapter_bytes
        log.info("adapters %s take %.2f MiB beside the weights", names, size / 2**20)
    target_itl_s = None if told.target_itl_ms is None else told.target_itl_ms / 1000
    is_cpu = registry.find(opened.manifest.backend).is_cpu
    num_cores = len(os.sched_getaffinity(0))
    rate = ChunkRate.of(told.max_chunks_per_s, is_cpu=is_cpu, num_cores=num_cores)
    host = EngineHost(opened, told.queue, rate, target_itl_s, told.prefix_cache, tracing)

    def drain() -> None:
        log.info("signal SIGTERM: draining for %g s at most", told.drain_s)
        host.loop.stop(told.drain_s)

    def ask_drain(number: int, frame: FrameType | None) -> None:
        """Leave it to a thread: a signal may come in the midst of a line, or of a lock."""
        threading.Thread(target=drain, name="drain").start()

    signal.signal(signal.SIGTERM, ask_drain)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which tells us
    listener = host.listen(socket_path)
    log.info("engine %s is ready, pid %d", engine, os.getpid())
    host.serve(listener)
    if host.loop.failure is not None:
        raise ChildProcessFailedError(f"the engine failed: {host.loop.failure}")
    log.info("drained")


if __name__ == "__main__":
    sys.exit(main())
