"""From a recorded run to its result: status, window, metrics, notes."""

from dataclasses import asdict, replace

from nemotrt.profiles.evaluation import evaluate, steady_window
from nemotrt.profiles.load.driver import LoadRecord
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.metrics.run_view import RunView
from nemotrt.profiles.nvml.flags import flags
from nemotrt.profiles.nvml.gpu_trace import GpuTrace
from nemotrt.profiles.nvml.watch import Watch
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
from nemotrt.profiles.targets.server_metrics import BATCH_SIZE, QUEUE_MS, ServerMetrics
from nemotrt.profiles.targets.target import Target

# Requests that an open loop sends this late are worth a word.
NOTABLE_LATENESS_S = 0.1


def compose(
    target: Target,
    workload: Workload,
    record: LoadRecord,
    started_at: str,
    watch: Watch,
    server: ServerMetrics | None,
) -> ProfileResult:
    """Return the result of what was recorded."""
    requests = tuple(
        request_record(exchange, record.start_s)
        for exchange in record.exchanges
        if exchange.due_s is not None  # the others never left
    )
    steps, window = step_records(target, record.start_s), steady_window(requests)
    gpus = tuple(watch.traces(record.start_s))
    view = RunView(requests, steps, *(window or (0.0, 0.0)), record.cpu_s, workload.slos, gpus)
    if server is not None and window is not None:
        start_s, end_s = (record.start_s + at_s for at_s in window)
        view = replace(
            view,
            server_queue_ms=server.mean(QUEUE_MS, start_s, end_s),
            server_batch_size=server.mean(BATCH_SIZE, start_s, end_s),
        )
    driver = driver_record(record)
    status, reason = _status(record)
    notes = [*_driver_notes(driver, requests), *_gpu_notes(watch, gpus, window)]
    if server is not None and server.failure:
        notes.append(f"No server metrics: {server.failure}")
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
        notes=tuple(notes),
        requests=requests,
        steps=steps,
        gpus=gpus,
        energy=tuple(gpu.energy(*window) if window else None for gpu in gpus),
    )


def _status(record: LoadRecord) -> tuple[Status, str]:
    """Return how the run ended, and why."""
    if record.failure is not None:
        return Status.FAILED, record.failure.message
    if record.is_interrupted:
        return Status.INTERRUPTED, "interrupted before the last measured request ended."
    return Status.COMPLETE, ""


def _driver_notes(driver: DriverRecord, requests: tuple[RequestRecord, ...]) -> list[str]:
    """Return what a reader must know of the load driver."""
    notes = []
    if driver.is_limit:
        notes.append(
            f"The load driver used {driver.cpu_share:.0%} of a core: it, not the server, may have "
            "been the limit."
        )
    lates_s = [r.sent_s - r.due_s for r in requests if r.sent_s is not None]
    if lates_s and max(lates_s) > NOTABLE_LATENESS_S:
        notes.append(
            f"Requests were sent up to {1e3 * max(lates_s):.0f} ms after they were due; latencies "
            "count from when they were due."
        )
    return notes


def _gpu_notes(
    watch: Watch, gpus: tuple[GpuTrace, ...], window: tuple[float, float] | None
) -> list[str]:
    """Return why there are no GPU figures, or what spoils them."""
    notes = [watch.absence] if watch.absence else []
    if window is not None:
        notes += [text for gpu in gpus for text in flags(gpu, *window)]
    return notes
