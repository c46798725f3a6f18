"""A profile result from another tool's requests."""

from dataclasses import dataclass

from nemotrt.profiles.evaluation import evaluate
from nemotrt.profiles.metrics.run_view import RunView
from nemotrt.profiles.result import (
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


def compose(imported: Imported) -> ProfileResult:
    """Return the result; the window is the time in which the load was full.

    Other tools let the load run down at the end, so the window ends when the last request is
    sent; it starts at the end of the warm-up, or with the first end.
    """
    origin_s = min(request.due_s for request in imported.requests)
    requests = tuple(_shifted(request, origin_s) for request in imported.requests)
    window = _full_window(requests)
    view = RunView(requests, (), *(window or (0.0, 0.0)), driver_cpu_s=0.0)
    measured = [request for request in requests if request.phase == "measured"]
    failed = [request for request in measured if not request.is_complete]
    metrics = evaluate(view)
    cost = metrics["driver_cpu_us_per_token"]
    metrics["driver_cpu_us_per_token"] = cost.model_copy(
        update={"value": None, "not_computable": f"{imported.tool} does not tell it."}
    )
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
            arrival="closed",
            requests_per_s=0.0,
            language="unknown",
            seed=0,
            slos={},
            trace=(),
        ),
        window_s=window,
        metrics=metrics,
        driver=DriverRecord(cpu_share=0.0, loop_lag_p99_ms=0.0, is_limit=False),
        machine={"architecture": "unknown", "num_cores": "unknown"},
        notes=(f"Imported from {imported.tool}; it does not tell the machine or the GPU.",),
        requests=requests,
        steps=(),
    )


def _full_window(requests: tuple[RequestRecord, ...]) -> tuple[float, float] | None:
    """Return the time in which as many requests as possible ran, None where there is none."""
    measured = [request for request in requests if request.phase == "measured"]
    warm = [r.arrivals_s[-1] for r in requests if r.phase == "warm-up" and r.arrivals_s]
    ends = [request.arrivals_s[-1] for request in measured if request.arrivals_s]
    if not ends:
        return None
    start_s = max(warm) if warm else min(ends)
    end_s = max(request.due_s for request in measured)
    # a run of one turn has no such time; then the whole of it counts
    return (start_s, end_s) if end_s > start_s else (0.0, max(ends))


def _shifted(request: RequestRecord, origin_s: float) -> RequestRecord:
    """Return the request with times from `origin_s`."""
    return request.model_copy(
        update={
            "due_s": request.due_s - origin_s,
            "sent_s": request.due_s - origin_s,
            "ended_s": None if request.ended_s is None else request.ended_s - origin_s,
            "arrivals_s": tuple(at_s - origin_s for at_s in request.arrivals_s),
        }
    )


def imported_request(
    index: int,
    phase: str,
    isl: int,
    osl: int,
    start_s: float,
    gaps_s: list[float],
    error: str,
) -> RequestRecord:
    """Return a request from its start, its time to first token and the gaps after it.

    Tokens are spread evenly over the responses: other tools do not tell how many each held.
    """
    arrivals_s, at_s = [], start_s
    for gap_s in gaps_s:
        at_s += gap_s
        arrivals_s.append(at_s)
    share, rest = divmod(osl, len(gaps_s)) if gaps_s else (0, 0)
    return RequestRecord.model_validate(
        {
            "index": index,
            "phase": phase,
            "isl": isl,
            "osl": osl,
            "due_s": start_s,
            "sent_s": start_s,
            "admitted_s": None,
            "ended_s": arrivals_s[-1] if arrivals_s else None,
            "arrivals_s": tuple(arrivals_s),
            "arrival_tokens": tuple(share + (i < rest) for i in range(len(gaps_s))),
            "finish_reason": "",
            "error": error or ("" if gaps_s else "no token came back."),
        }
    )
