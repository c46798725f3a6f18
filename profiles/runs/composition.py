"""From a recorded run to its result: status, window, metrics, notes."""

from collections.abc import Sequence
from dataclasses import replace

from nemotrt.profiles.hardware.nvml.flags import flags
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuTrace
from nemotrt.profiles.hardware.nvml.watch import Watch
from nemotrt.profiles.load.driver import LoadRecord
from nemotrt.profiles.load.exchange import Counting
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.targets.server_metrics import QUEUE_HISTOGRAMS_MS, ServerMetrics
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.runs.metrics.evaluation import evaluate, steady_window
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.metrics.turns import turn_records
from nemotrt.profiles.runs.record.endings import count_endings, errors_text
from nemotrt.profiles.runs.record.prefix_cache import CacheUse, cache_use
from nemotrt.profiles.runs.record.recording import (
    driver_cpu_s,
    driver_record,
    machine_facts,
    request_record,
    step_records,
)
from nemotrt.profiles.runs.record.result import (
    DriverRecord,
    ProfileResult,
    RequestRecord,
    Status,
    WorkloadRecord,
)

# Requests that an open loop sends this late are worth a word.
NOTABLE_LATENESS_S = 0.1
# Heartbeats of an idle machine come 0.1 to 1 ms late.
NOTABLE_LAG_MS = 5.0
# A first response may hold two tokens; so may some where a token is no text yet.
NOTABLE_TOKENS = 1.2
UNCOUNTED = (
    "The server does not say how many tokens it read and wrote: each response counts as one token, "
    "and prompts have the length that --tokenizer gives them."
)
COUNTED_HERE = (
    "The server does not say how many tokens it read and wrote: --tokenizer counts those of each "
    "response's text, and a total within 5 % is taken for the length that was asked for."
)
STARTED_WARM = (
    "The server had the run's first prompts in its prefix cache: it did not start cold. Start it "
    "anew, or leave out --seed."
)


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
    is_cut = record.failure is not None or record.is_interrupted
    steps = step_records(target, record.start_s)
    window = steady_window(requests, runs_down=record.runs_down, is_cut=is_cut)
    gpus = tuple(watch.traces(record.start_s))
    view = RunView(
        requests, steps, *(window or (0.0, 0.0)), driver_cpu_s(record), workload.slos, gpus
    )
    if server is not None and window is not None:
        start_s, end_s = (record.start_s + at_s for at_s in window)
        view = replace(
            view,
            server_queue_ms=server.histogram_mean(QUEUE_HISTOGRAMS_MS, start_s, end_s),
            server_batch_size=server.batch_size(start_s, end_s),
        )
    driver = driver_record(record, window)
    status, reason = _status(record)
    endings = count_endings(requests)
    notes = list(filter(None, [errors_text(endings)]))
    notes += _driver_notes(driver, requests, has_own_clock=target.stamps_itself)
    notes += _response_notes(view.answered)
    countings = {exchange.counting for exchange in record.exchanges}
    if Counting.TOKENIZER in countings:
        notes.append(COUNTED_HERE)
    elif Counting.RESPONSES in countings:
        notes.append(UNCOUNTED)
    if record.use is not None and record.use.text:
        notes.append(record.use.text)
    if cache_use(requests) is CacheUse.STARTED_WARM:
        notes.append(STARTED_WARM)
    notes += _gpu_notes(watch, gpus, window)
    if server is not None and server.failure and len(server.urls) == 1:  # it was asked for
        notes.append(f"No server metrics: {server.failure}")
    return ProfileResult(
        status=status,
        reason=reason,
        started_at=started_at,
        clock_start_s=record.start_s,
        duration_s=round(record.end_s - record.start_s, 6),
        target={**(server.engine if server else {}), **target.facts},
        workload=WorkloadRecord.of(workload),
        window_s=window,
        metrics=evaluate(view),
        driver=driver,
        machine=machine_facts(),
        notes=tuple(notes),
        requests=requests,
        steps=steps,
        gpus=gpus,
        energy=tuple(gpu.energy(*window) if window else None for gpu in gpus),
        turns=turn_records(requests),
        endings=endings,
        machine_use=record.use,
    )


def _status(record: LoadRecord) -> tuple[Status, str]:
    """Return how the run ended, and why."""
    if record.failure is not None:
        return Status.FAILED, record.failure.message
    if record.is_interrupted:
        return Status.INTERRUPTED, "interrupted before the last measured request ended."
    return Status.COMPLETE, ""


def _driver_notes(
    driver: DriverRecord, requests: tuple[RequestRecord, ...], *, has_own_clock: bool
) -> list[str]:
    """Return what a reader must know of the load driver.

    A target that `has_own_clock` stamps arrivals itself, whatever the driver's loop does.
    """
    notes = []
    if driver.is_limit:
        notes.append(
            f"The load driver was busy {driver.busy_share:.0%} of the time (on the CPU "
            f"{driver.cpu_share:.0%}): it, not the server, may have been the limit."
        )
    lag_ms = driver.loop_lag_p99_ms
    if lag_ms is not None and lag_ms > NOTABLE_LAG_MS and not has_own_clock:
        notes.append(
            f"The load driver woke up to {lag_ms:.0f} ms late (99th percentile), and so may its "
            "time stamps be: other work keeps this machine busy."
        )
    lates_s = [r.sent_s - r.due_s for r in requests if r.sent_s is not None and not r.num_retries]
    if lates_s and max(lates_s) > NOTABLE_LATENESS_S:
        notes.append(
            f"Requests were sent up to {1e3 * max(lates_s):.0f} ms after they were due; latencies "
            "count from when they were due."
        )
    return notes


def _response_notes(answered: Sequence[RequestRecord]) -> list[str]:
    """Return what a reader must know where a response holds several tokens."""
    counts = [count for request in answered for count in request.arrival_tokens[1:]]
    if not counts or (mean := sum(counts) / len(counts)) < NOTABLE_TOKENS:
        return []
    return [
        f"Responses after the first held {mean:.1f} tokens on average: itl_ms is the time between "
        "responses, tpot_ms that of a token."
    ]


def _gpu_notes(
    watch: Watch, gpus: tuple[GpuTrace, ...], window: tuple[float, float] | None
) -> list[str]:
    """Return why there are no GPU figures, or what spoils them."""
    notes = [watch.absence] if watch.absence else []
    if window is not None:
        notes += [text for gpu in gpus for text in flags(gpu, *window)]
    return notes
