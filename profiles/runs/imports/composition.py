"""A profile result from another tool's requests."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from nemotrt.errors import ArtefactError
from nemotrt.profiles.load.targets.token_count import even_shares
from nemotrt.profiles.runs.metrics.evaluation import evaluate, steady_window
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.record.result import (
    DriverRecord,
    ProfileResult,
    RequestRecord,
    Status,
    WorkloadRecord,
)


@dataclass(frozen=True, slots=True)
class Imported:
    """What another tool wrote; times are seconds from any origin."""

    tool: str
    model: str
    address: str
    concurrency: int
    requests: tuple[RequestRecord, ...]
    arrival: str = "closed"
    requests_per_s: float = 0.0


def compose(imported: Imported) -> ProfileResult:
    """Return the result; the window is the time in which the load was full.

    Other tools let the load run down at the end, so the window ends when the last request is
    sent; it starts at the end of the warm-up, or with the first end.
    """
    origin_s = min(request.due_s for request in imported.requests)
    requests = tuple(_shifted(request, origin_s) for request in imported.requests)
    window = steady_window(requests, runs_down=True)
    view = RunView(requests, (), *(window or (0.0, 0.0)), driver_cpu_s=None)
    measured = [request for request in requests if request.phase == "measured"]
    failed = [request for request in measured if not request.is_complete]
    metrics = evaluate(view)
    ends_s = [request.arrivals_s[-1] for request in requests if request.arrivals_s]
    return ProfileResult(
        status=Status.FAILED if failed else Status.COMPLETE,
        reason=f"{len(failed)} of {len(measured)} requests failed: {failed[0].error}"
        if failed
        else "",
        started_at="unknown",
        clock_start_s=None,
        duration_s=max(ends_s, default=0.0),
        target={"kind": imported.tool, "address": imported.address, "model": imported.model},
        workload=WorkloadRecord(
            isl=max(request.isl for request in measured),
            osl=max(request.osl for request in measured),
            num_requests=len(measured),
            concurrency=imported.concurrency,
            num_warmup=len(requests) - len(measured),
            arrival=imported.arrival,
            requests_per_s=imported.requests_per_s,
            language="unknown",
            seed=0,
            slos={},
            trace=(),
        ),
        window_s=window,
        metrics=metrics,
        driver=DriverRecord(
            name=imported.tool, cpu_share=None, loop_lag_p99_ms=None, is_limit=False
        ),
        machine={"architecture": "unknown", "num_cores": "unknown"},
        notes=(f"Imported from {imported.tool}; it does not tell the machine or the GPU.",),
        requests=requests,
        steps=(),
    )


def _shifted(request: RequestRecord, origin_s: float) -> RequestRecord:
    """Return the request with times from `origin_s`."""
    return request.model_copy(
        update={
            "due_s": request.due_s - origin_s,
            "sent_s": None if request.sent_s is None else request.sent_s - origin_s,
            "ended_s": None if request.ended_s is None else request.ended_s - origin_s,
            "arrivals_s": tuple(at_s - origin_s for at_s in request.arrivals_s),
        }
    )


def imported_request(
    index: int,
    phase: str,
    isl: int,
    osl: int,
    due_s: float,
    sent_s: float,
    gaps_s: Sequence[float],
    error: str,
) -> RequestRecord:
    """Return a request from its start, its time to first token and the gaps after it.

    Tokens are spread evenly over the responses: other tools do not tell how many each held. An
    answer without a token has failed, whatever the tool says of it.

    Raises:
        ArtefactError: a time is no number, or negative.
    """
    if (
        not all(math.isfinite(value) for value in (due_s, sent_s, *gaps_s))
        or min(gaps_s, default=0.0) < 0
    ):
        raise ArtefactError(f"request {index} has times that are no durations: {list(gaps_s)[:5]}.")
    if osl < 1:
        gaps_s = []
    arrivals_s = list(itertools.accumulate(gaps_s, initial=sent_s))[1:]
    return RequestRecord.model_validate(
        {
            "index": index,
            "phase": phase,
            "isl": isl,
            "osl": max(osl, 1),
            "due_s": due_s,
            "sent_s": sent_s,
            "admitted_s": None,
            "ended_s": arrivals_s[-1] if arrivals_s else None,
            "arrivals_s": tuple(arrivals_s),
            "arrival_tokens": even_shares(osl, len(arrivals_s)),
            "finish_reason": "",
            "error": error or ("" if gaps_s else "no token came back."),
        }
    )
