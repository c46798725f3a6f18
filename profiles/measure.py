"""Runs a workload against a target and returns the measured result."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nemotrt.profiles.composition import compose
from nemotrt.profiles.load.driver import LoadRecord, drive, prepare
from nemotrt.profiles.load.exchange import Exchange, Phase
from nemotrt.profiles.load.journal import journal
from nemotrt.profiles.load.schedule import num_measured
from nemotrt.profiles.load.stamping_loop import StampingLoop
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.nvml.watch import GpuChoice, watching
from nemotrt.profiles.prediction import PredictionChoice, try_predict
from nemotrt.profiles.recording import request_record
from nemotrt.profiles.result import ProfileResult
from nemotrt.profiles.targets.server_metrics import ServerMetrics
from nemotrt.profiles.targets.target import Target

PROGRESS_INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    num_done: int  # measured requests
    num_requests: int
    num_responses: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Observers:
    """Who watches a run; None and "" watch nothing.

    Attributes:
        on_progress: called a few times a second.
        journal: a folder that keeps every request as it ends.
        gpus: what NVML samples.
        metrics_url: the server's Prometheus page.
        prediction: what the planner is asked for.
    """

    on_progress: Callable[[Progress], None] | None = None
    journal: Path | None = None
    gpus: GpuChoice | None = None
    metrics_url: str = ""
    prediction: PredictionChoice | None = None


@dataclass(frozen=True, slots=True)
class _Session:
    """One run: what was asked for, and what is recorded."""

    target: Target
    workload: Workload
    observers: Observers
    server: ServerMetrics | None
    record: LoadRecord = field(default_factory=LoadRecord)


def run(target: Target, workload: Workload, observers: Observers | None = None) -> ProfileResult:
    """Return the measured result; it says so if the run failed or was interrupted.

    Raises:
        EnvironmentUnfitError: the target can't be reached at all.
        ConfigError: the target can't take this workload.
    """
    observers = observers or Observers()
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    server = ServerMetrics(observers.metrics_url) if observers.metrics_url else None
    session = _Session(target, workload, observers, server)
    with watching(observers.gpus) as watch:
        if observers.journal is None:
            _execute(session)
        else:
            _execute_journalled(session, observers.journal, started_at)
    result = compose(target, workload, session.record, started_at, watch, server)
    if observers.prediction is None:
        return result
    limit = result.target.get("max_batch_size")
    prediction, absence = try_predict(
        observers.prediction, workload, limit if isinstance(limit, int) else None
    )
    notes = (*result.notes, absence) if absence else result.notes
    return result.model_copy(update={"prediction": prediction, "notes": notes})


def _execute_journalled(session: _Session, folder: Path, started_at: str) -> None:
    """Run, with every ended request in the journal."""
    record = session.record
    head = {
        "started_at": started_at,
        "target": dict(session.target.facts),
        "workload": asdict(session.workload),
    }
    with journal(folder, head) as append:

        def keep(exchange: Exchange) -> None:
            if exchange.due_s is not None:
                append(request_record(exchange, record.start_s).model_dump())

        record.on_ended = keep
        _execute(session)


def _execute(session: _Session) -> None:
    """Run to the end, or to an interrupt, which the record tells."""
    try:
        with asyncio.Runner(loop_factory=StampingLoop) as runner:
            runner.run(_run(session))
    except (KeyboardInterrupt, asyncio.CancelledError):
        if not session.record.is_interrupted:
            raise


async def _run(session: _Session) -> None:
    """Open the target, drive it, close it; SIGTERM ends the run like Ctrl-C."""
    target, workload = session.target, session.workload
    prompts = prepare(target, workload)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # inside a coroutine
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    watchers = [asyncio.create_task(_report(session))]
    try:
        await target.open()
        if session.server is not None:
            watchers.append(asyncio.create_task(session.server.watch()))
        await drive(target, workload, prompts, session.record)
        if session.server is not None:
            session.server.is_over.set()
            await watchers[-1]
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await target.close()
        loop.remove_signal_handler(signal.SIGTERM)


async def _report(session: _Session) -> None:
    """Tell the progress a few times a second."""
    record, tell = session.record, session.observers.on_progress
    while tell is not None:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        measured = [e for e in record.exchanges if e.phase is Phase.MEASURED]
        tell(
            Progress(
                num_done=sum(exchange.ended_s is not None for exchange in measured),
                num_requests=num_measured(session.workload),
                num_responses=sum(len(exchange.arrivals_s) for exchange in record.exchanges),
                elapsed_s=time.perf_counter() - record.start_s if record.start_s else 0.0,
            )
        )
