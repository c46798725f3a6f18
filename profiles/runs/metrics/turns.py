"""Conversations turn by turn: how long the first token took, and what the server had cached."""

from collections.abc import Sequence
from statistics import median

from nemotrt.profiles.load.exchange import Phase
from nemotrt.profiles.runs.metrics.request_metrics import ttft_ms
from nemotrt.profiles.runs.record.result import RequestRecord, TurnRecord, Warmth
from nemotrt.profiles.runs.record.statistics import Statistics, summarize


def turn_records(requests: Sequence[RequestRecord]) -> tuple[TurnRecord, ...]:
    """Return a record of every turn of which a measured request was answered."""
    turns: dict[int, list[RequestRecord]] = {}
    for request in requests:
        is_answered = request.arrivals_s and not request.error
        if request.place and request.phase is Phase.MEASURED and is_answered:
            turns.setdefault(request.place.turn, []).append(request)
    isls = {(r.place.conversation, r.place.turn): r.isl for r in requests if r.place}
    return tuple(_record(turn, turns[turn], isls) for turn in sorted(turns))


def _record(
    turn: int, requests: list[RequestRecord], isls: dict[tuple[int, int], int]
) -> TurnRecord:
    """Return the record of one turn; `isls` are prompts' lengths by conversation and turn."""
    told = [request.cached_tokens for request in requests if request.cached_tokens is not None]
    new = [r.isl - isls.get((r.place.conversation, turn - 1), 0) for r in requests if r.place]
    return TurnRecord(
        turn=turn,
        num_requests=len(requests),
        isl=median(request.isl for request in requests),
        new_tokens=median(new),
        cached_tokens=median(told) if told else None,
        ttft_ms=summarize([ttft_ms(request) for request in requests]),
        warm_ttft_ms=_of(requests, Warmth.WARM),
        cold_ttft_ms=_of(requests, Warmth.COLD),
    )


def _of(requests: list[RequestRecord], warmth: Warmth) -> Statistics | None:
    """Return the times to the first token of the requests of this kind, None if there are none."""
    times = [ttft_ms(request) for request in requests if request.warmth is warmth]
    return summarize(times) if times else None
