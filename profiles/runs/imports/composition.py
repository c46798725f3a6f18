"""A profile result from requests alone: another tool's, or those that a killed run left."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from nemotrt.errors import ArtefactError
from nemotrt.profiles.load.exchange import Phase, TurnPlace
from nemotrt.profiles.load.targets.token_count import even_shares
from nemotrt.profiles.runs.metrics.evaluation import evaluate, steady_window
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.metrics.turns import turn_records
from nemotrt.profiles.runs.record.endings import count_endings, errors_text
from nemotrt.profiles.runs.record.result import (
    DriverRecord,
    ProfileResult,
    RequestRecord,
    Status,
    WorkloadRecord,
)


def compose(
    requests: Sequence[RequestRecord],
    tool: str,
    model: str,
    address: str,
    concurrency: int,
    arrival: str = "closed",
    requests_per_s: float = 0.0,
) -> ProfileResult:
    """Return the result of another tool's requests, whose times count from any origin.

    The window is the time in which the load was full. Other tools let the load run down at the
    end, so the window ends when the last request is sent; it starts at the end of the warm-up, or
    with the first end.
    """
    origin_s = min(request.due_s for request in requests)
    requests = [request.moved(lambda at_s: at_s - origin_s) for request in requests]
    measured = [request for request in requests if request.phase is Phase.MEASURED]
    failed = [request for request in measured if not request.is_complete]
    workload = WorkloadRecord(
        isl=max(request.isl for request in measured),
        osl=max(request.osl for request in measured),
        num_requests=len(measured),
        concurrency=concurrency,
        num_warmup=len(requests) - len(measured),
        arrival=arrival,
        requests_per_s=requests_per_s,
        language="unknown",
        seed=0,
        slos={},
        trace=(),
    )
    why = f"{len(failed)} of {len(measured)} requests failed: {failed[0].error}" if failed else ""
    return result_of(
        requests,
        workload,
        steady_window(tuple(requests), runs_down=True),
        tool,
        status=Status.FAILED if failed else Status.COMPLETE,
        reason=why,
        started_at="unknown",
        target={"kind": tool, "address": address, "model": model},
        machine={"architecture": "unknown", "num_cores": "unknown"},
        notes=(
            f"Imported from {tool}; it does not tell the machine or the GPU.",
            *filter(None, [errors_text(count_endings(requests))]),
        ),
    )


def result_of(
    requests: Sequence[RequestRecord],
    workload: WorkloadRecord,
    window_s: tuple[float, float] | None,
    driver: str,
    **facts: Any,
) -> ProfileResult:
    """Return the result of requests whose driver left nothing else; `facts` are further fields."""
    view = RunView(tuple(requests), (), *(window_s or (0.0, 0.0)), None, workload.slos)
    ends_s = [request.arrivals_s[-1] for request in requests if request.arrivals_s]
    return ProfileResult(
        clock_start_s=None,
        duration_s=max(ends_s, default=0.0),
        workload=workload,
        window_s=window_s,
        metrics=evaluate(view),
        driver=DriverRecord(name=driver, cpu_share=None, loop_lag_p99_ms=None, is_limit=False),
        requests=view.requests,
        steps=(),
        turns=turn_records(view.requests),
        endings=count_endings(view.requests),
        **facts,
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
    place: TurnPlace | None = None,
    cached_tokens: int | None = None,
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
            "place": place,
            "cached_tokens": cached_tokens,
        }
    )
