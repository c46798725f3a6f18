"""Runs a workload against a target and computes every metric."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from nemotrt.profiles.evaluation import evaluate, steady_window
from nemotrt.profiles.load.driver import LoadRecord, drive, prepare
from nemotrt.profiles.load.exchange import Exchange, Phase
from nemotrt.profiles.load.journal import journal
from nemotrt.profiles.load.stamping_loop import StampingLoop
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.metrics.run_view import RunView
from nemotrt.profiles.nvml.flags import flags
from nemotrt.profiles.nvml.watch import GpuChoice, Watch, watching
from nemotrt.profiles.recording import (
    driver_record,
    machine_facts,
    request_record,
    step_records,
)
from nemotrt.profiles.result import (
    DriverRecord,
    ProfileResult,
    RequestRecord,
    Status,
    WorkloadRecord,
)
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
    """Who watches a run: a progress display, a folder that keeps ended requests, NVML.

    Without `gpus` no GPU is looked at.
    """

    on_progress: Callable[[Progress], None] | None = None
    journal: Path | None = None
    gpus: GpuChoice | None = None


def run(target: Target, workload: Workload, observers: Observers | None = None) -> ProfileResult:
    """Return the measured result; it says so if the run failed or was interrupted.

    Raises:
        EnvironmentUnfitError: the target can't be reached at all.
        ConfigError: the target can't take this workload.
    """
    observers = observers or Observers()
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = LoadRecord()
    with watching(observers.gpus) as watch:
        _journalled(target, workload, record, observers, started_at)
    return _result(target, workload, record, started_at, watch)


def _journalled(
    target: Target, workload: Workload, record: LoadRecord, observers: Observers, started_at: str
) -> None:
    """Run, with every ended request in the journal, if there is one."""
    if observers.journal is None:
        _execute(target, workload, record, observers)
        return
    head = {"started_at": started_at, "target": dict(target.facts), "workload": asdict(workload)}
    with journal(observers.journal, head) as append:

        def keep(exchange: Exchange) -> None:
            if exchange.due_s is not None:
                append(request_record(exchange, record.start_s).model_dump())

        record.on_ended = keep
        _execute(target, workload, record, observers)


def _execute(target: Target, workload: Workload, record: LoadRecord, observers: Observers) -> None:
    """Run to the end, or to an interrupt, which `record` tells."""
    try:
        with asyncio.Runner(loop_factory=StampingLoop) as runner:
            runner.run(_run(target, workload, record, observers))
    except (KeyboardInterrupt, asyncio.CancelledError):
        if not record.is_interrupted:
            raise


async def _run(
    target: Target, workload: Workload, record: LoadRecord, observers: Observers
) -> None:
    """Open the target, drive it, close it; SIGTERM ends the run like Ctrl-C."""
    prompts = prepare(target, workload)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # inside a coroutine
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    reporter = asyncio.create_task(_report(workload, record, observers.on_progress))
    try:
        await target.open()
        await drive(target, workload, prompts, record)
    finally:
        reporter.cancel()
        await target.close()
        loop.remove_signal_handler(signal.SIGTERM)


async def _report(
    workload: Workload, record: LoadRecord, on_progress: Callable[[Progress], None] | None
) -> None:
    """Tell the progress a few times a second."""
    while on_progress is not None:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        measured = [e for e in record.exchanges if e.phase is Phase.MEASURED]
        on_progress(
            Progress(
                num_done=sum(exchange.ended_s is not None for exchange in measured),
                num_requests=workload.num_requests,
                num_responses=sum(len(exchange.arrivals_s) for exchange in record.exchanges),
                elapsed_s=time.perf_counter() - record.start_s if record.start_s else 0.0,
            )
        )


def _result(
    target: Target, workload: Workload, record: LoadRecord, started_at: str, watch: Watch
) -> ProfileResult:
    """Return the result of what was recorded."""
    requests = tuple(
        request_record(exchange, record.start_s)
        for exchange in record.exchanges
        if exchange.due_s is not None
    )
    status, reason = Status.COMPLETE, ""
    if record.failure is not None:
        status, reason = Status.FAILED, record.failure.message
    elif record.is_interrupted:
        status, reason = Status.INTERRUPTED, "interrupted before the last measured request ended."
    gpus = tuple(watch.traces(record.start_s))
    steps, window = step_records(target, record.start_s), steady_window(requests)
    view = RunView(requests, steps, *(window or (0.0, 0.0)), record.cpu_s, workload.slos, gpus)
    driver = driver_record(record)
    return ProfileResult(
        status=status,
        reason=reason,
        started_at=started_at,
        clock_start_s=record.start_s,
        duration_s=round(record.end_s - record.start_s, 6),
        target=dict(target.facts),
        workload=WorkloadRecord.model_validate(asdict(workload)),
        window_s=window,
        metrics=evaluate(view),
        driver=driver,
        machine=machine_facts(),
        notes=(
            *_notes(driver, requests),
            *([watch.absence] if watch.absence else []),
            *(text for gpu in gpus if window for text in flags(gpu, *window)),
        ),
        requests=requests,
        steps=steps,
        gpus=gpus,
        energy=tuple(gpu.energy(*window) if window else None for gpu in gpus),
    )


def _notes(driver: DriverRecord, requests: tuple[RequestRecord, ...]) -> list[str]:
    """Return what a reader must know about the run."""
    notes = []
    if driver.is_limit:
        notes.append(
            f"The load driver used {driver.cpu_share:.0%} of a core: it, not the server, may have "
            "been the limit."
        )
    lates = [r.sent_s - r.due_s for r in requests if r.sent_s is not None]
    if lates and max(lates) > 0.1:
        notes.append(
            f"Requests were sent up to {1e3 * max(lates):.0f} ms after they were due; latencies "
            "count from when they were due."
        )
    return notes
