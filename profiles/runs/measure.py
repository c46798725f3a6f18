"""Runs a workload against a target and returns the measured result."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import Precision
from nemotrt.profiles.hardware.gpu_choice import GpuChoice
from nemotrt.profiles.hardware.nvml.watch import watching
from nemotrt.profiles.load.driver import Drive, LoadRecord, drive, prepare
from nemotrt.profiles.load.exchange import Phase
from nemotrt.profiles.load.schedule import num_measured
from nemotrt.profiles.load.stamping_loop import StampingLoop
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.targets.server_metrics import PATHS, ServerMetrics
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.runs.composition import compose
from nemotrt.profiles.runs.record.journal import Journal
from nemotrt.profiles.runs.record.prediction import try_predict
from nemotrt.profiles.runs.record.recording import machine_facts
from nemotrt.profiles.runs.record.result import ProfileResult, Status, WorkloadRecord

if TYPE_CHECKING:
    from nemotrt.profiles.planning.answers.options import DeploymentOptions

PROGRESS_INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    concurrency: int
    num_done: int  # measured requests
    num_requests: int
    num_tokens: int
    elapsed_s: float  # since the load began; 0 while prompts are made


@dataclass(frozen=True, slots=True)
class Observers:
    """Who watches a run; None watches nothing.

    Attributes:
        on_progress: called a few times per second.
        journal: a folder that keeps what comes in; it stays until it is discarded.
        gpus: what NVML samples.
        metrics_url: the server's Prometheus page; "" looks where OpenAI endpoints have it.
        prediction: what the planner is asked for; without a precision the target's own, if told.
        facts: what the user says of the target, beside what it says itself.
    """

    on_progress: Callable[[Progress], None] | None = None
    journal: Path | None = None
    gpus: GpuChoice | None = None
    metrics_url: str = ""
    prediction: "DeploymentOptions | None" = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Session:
    """One run: what was asked for, and what is recorded."""

    target: Target
    workload: Workload
    observers: Observers
    server: ServerMetrics | None
    drive: Drive
    record: LoadRecord = field(default_factory=LoadRecord)


def run(
    target: Target,
    workload: Workload,
    observers: Observers | None = None,
    drive: Drive = drive,
) -> ProfileResult:
    """Return the measured result; it says so if the run failed or was interrupted.

    `drive` sends the load: our own driver, or another that fills a LoadRecord.

    Raises:
        EnvironmentUnfitError: the target can't be reached at all.
        ConfigError: the target can't take this workload.
    """
    observers = observers or Observers()
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    server = _server_metrics(target, observers)
    session = _Session(target, workload, observers, server, drive)
    with watching(observers.gpus) as watch, _journal(session, started_at) as journal:
        _execute(session, journal)
    result = compose(target, workload, session.record, started_at, watch, server)
    result = _with_facts(result, observers.facts)
    return _with_prediction(result, observers.prediction, workload)


def _with_facts(result: ProfileResult, said: Mapping[str, str]) -> ProfileResult:
    """Return the result with what the user said of the target; what it says itself goes before."""
    notes = tuple(
        f"The target's {name} is {result.target[name]} by its own word, not {value}."
        for name, value in said.items()
        if result.target.get(name, value) != value
    )
    target = {**said, **result.target}
    return result.model_copy(update={"target": target, "notes": (*result.notes, *notes)})


def _with_prediction(
    result: ProfileResult, options: "DeploymentOptions | None", workload: Workload
) -> ProfileResult:
    """Return the result with what the planner expected, or with why it expects nothing."""
    if options is None or result.status is Status.INTERRUPTED:  # the user waits for the end
        return result
    if workload.sessions is not None:
        absence = "No prediction of conversations here: `nemotrt plan MODEL --sessions` has it."
        return result.model_copy(update={"notes": (*result.notes, absence)})
    from nemotrt.profiles.planning.answers.options import THIS_MACHINE

    limit = result.target.get("max_batch_size")
    if options.precision is None and "precision" in result.target:
        options = options.at(precision=Precision(str(result.target["precision"])))
    backend = str(result.target.get("backend", ""))
    if options.gpu == THIS_MACHINE and backend in registry.cpu_names():
        options = options.at(engine=backend)
    prediction, absence = try_predict(options, workload, limit if isinstance(limit, int) else None)
    notes = [*result.notes, *([absence] if absence else [])]
    return result.model_copy(update={"prediction": prediction, "notes": tuple(notes)})


def _server_metrics(target: Target, observers: Observers) -> ServerMetrics | None:
    """Return who reads the server's own metrics: where it was told, or where servers have them."""
    if observers.metrics_url:
        return ServerMetrics((observers.metrics_url,))
    if target.openai is None:
        return None
    urls = tuple(target.openai.url + path for path in PATHS)
    return ServerMetrics(urls, target.openai.headers)


@contextmanager
def _journal(session: _Session, started_at: str) -> Iterator[Journal | None]:
    """Yield the run's journal, complete when the block ends; None if none is kept."""
    if session.observers.journal is None:
        yield None
        return
    head = {
        "started_at": started_at,
        "target": dict(session.target.facts),
        "workload": WorkloadRecord.of(session.workload).model_dump(),
        "machine": machine_facts(),
    }
    journal = Journal(session.observers.journal, head)
    try:
        yield journal
    finally:
        journal.update(session.record.exchanges, session.record.start_s)
        journal.close()


def _execute(session: _Session, journal: Journal | None) -> None:
    """Run to the end, or to an interrupt, which the record tells."""
    try:
        with asyncio.Runner(loop_factory=StampingLoop) as runner:
            runner.run(_run(session, journal))
    except (KeyboardInterrupt, asyncio.CancelledError):
        if not session.record.is_interrupted:
            raise KeyboardInterrupt from None  # before the load began


async def _run(session: _Session, journal: Journal | None) -> None:
    """Open the target, drive it, close it; SIGTERM ends the run like Ctrl-C."""
    target, workload = session.target, session.workload
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # inside a coroutine
    before = signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    watchers = [asyncio.create_task(_report(session, journal))]
    try:
        await target.open()
        prompts = await prepare(target, workload)
        if session.server is not None:
            watchers.append(asyncio.create_task(session.server.watch()))
        await session.drive(target, workload, prompts, session.record)
        if session.server is not None:
            session.server.is_over.set()
            await watchers[-1]
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await target.close()
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)  # asyncio leaves the system's


async def _report(session: _Session, journal: Journal | None) -> None:
    """Keep the journal and tell the progress a few times per second."""
    record, tell = session.record, session.observers.on_progress
    while tell is not None or journal is not None:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        if journal is not None:
            journal.update(record.exchanges, record.start_s)
        if tell is None:
            continue
        measured = [e for e in record.exchanges if e.phase is Phase.MEASURED]
        tell(
            Progress(
                concurrency=session.workload.concurrency,
                num_done=sum(exchange.ended_s is not None for exchange in measured),
                num_requests=num_measured(session.workload),
                num_tokens=sum(exchange.tokens_so_far for exchange in record.exchanges),
                elapsed_s=time.perf_counter() - record.start_s if record.start_s else 0.0,
            )
        )
