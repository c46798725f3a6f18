"""From a preset and the flags that override it to workloads, one a concurrency."""

import random
import secrets
from dataclasses import replace

from nemotrt.errors import ConfigError, unknown_name
from nemotrt.profiles.load.choice.options import ISL, OSL, PER_USER, LoadChoice
from nemotrt.profiles.load.choice.presets import Preset, preset
from nemotrt.profiles.load.choice.trace import read_trace
from nemotrt.profiles.load.workload import (
    Arrival,
    ErrorLimit,
    MadeSessions,
    TracedSessions,
    TraceEntry,
    Workload,
)
from nemotrt.profiles.runs.metrics.request_metrics import REQUEST_METRICS

DEFAULT = Preset(description="", isl=ISL, osl=OSL, requests_per_user=PER_USER)
OPEN_WARMUP_SHARE = 0.1
MAX_SEED = 2**31


def choose(
    choice: LoadChoice, concurrencies: tuple[int, ...], num_repeats: int = 1
) -> list[Workload]:
    """Return `num_repeats` workloads for each concurrency; an open loop or a trace has but one.

    Each has prompts of its own: a server's prefix cache may hold those of the run before.

    Raises:
        ConfigError: an unknown preset or SLO, or flags that exclude each other.
    """
    base = preset(choice.preset) if choice.preset else DEFAULT
    isl, osl = choice.isl or base.isl, choice.osl or base.osl
    made = _made_sessions(choice, base)
    traced = None if choice.trace is None else _read_trace(choice, osl, made is not None)
    common = Workload(
        isl=isl,
        osl=osl,
        num_requests=choice.num_requests or base.requests_per_user,
        num_warmup=choice.num_warmup or 0,
        language=choice.language,
        seed=secrets.randbelow(MAX_SEED) if choice.seed is None else choice.seed,
        slos=parse_slos(choice.slos),
        max_errors=ErrorLimit.parsed(choice.max_errors),
        max_retries=choice.max_retries,
    )
    if isinstance(traced, TracedSessions):
        common = _of_conversations(common, choice, traced)
    elif traced is not None or choice.requests_per_s is not None:
        common = _open(common, choice, traced)
    if common.arrival is not Arrival.CLOSED:
        if concurrencies != (1,):
            raise ConfigError("--concurrency is for a closed loop: leave out the other pace.")
        return [_seeded(common, repeat) for repeat in range(num_repeats)]
    closed = [
        replace(common, concurrency=concurrency)
        if common.sessions
        else _closed(common, choice, base, made, concurrency)
        for concurrency in concurrencies
    ]
    return [_seeded(workload, repeat) for workload in closed for repeat in range(num_repeats)]


def _closed(
    common: Workload, choice: LoadChoice, base: Preset, made: MadeSessions | None, concurrency: int
) -> Workload:
    """Return the workload of users, or of agents: theirs are conversations, without a warm-up.

    An agent's first turn shows what a cold cache costs.
    """
    count = choice.num_requests or base.requests_per_user * concurrency
    num_turns = made.num_turns if made else 1
    warmup = 0 if made else concurrency
    return replace(
        common,
        concurrency=concurrency,
        num_requests=count * num_turns,
        num_warmup=(warmup if choice.num_warmup is None else choice.num_warmup) * num_turns,
        sessions=made,
    )


def _made_sessions(choice: LoadChoice, base: Preset) -> MadeSessions | None:
    """Return the conversations that were asked for, None where single requests are."""
    num_turns = choice.num_turns or base.turns
    if num_turns is None:
        for name, value in (("system-tokens", choice.system_tokens), ("think-s", choice.think_s)):
            if value is not None:
                raise ConfigError(f"--{name} is for conversations: give --turns too.")
        return None
    if choice.requests_per_s is not None:
        raise ConfigError("--request-rate is for single requests: leave out --turns or the preset.")
    system_tokens = base.system_tokens if choice.system_tokens is None else choice.system_tokens
    think_s = base.think_s if choice.think_s is None else choice.think_s
    return MadeSessions(num_turns, system_tokens, think_s)


def _read_trace(
    choice: LoadChoice, osl: int, has_turns: bool
) -> tuple[TraceEntry, ...] | TracedSessions:
    """Return what is in the trace; raises ConfigError for flags that have no effect on it."""
    assert choice.trace is not None  # the caller looked
    if choice.requests_per_s is not None:
        raise ConfigError("--trace and --request-rate exclude each other.")
    if has_turns:
        raise ConfigError("a trace has turns of its own: leave out --turns or the preset.")
    traced = read_trace(choice.trace, osl=osl, speedup=choice.trace_speedup)
    if isinstance(traced, TracedSessions):
        for flag, value in (("--isl", choice.isl), ("-n", choice.num_requests)):
            if value is not None:
                raise ConfigError(
                    f"{flag} has no effect on a trace of conversations: leave it out."
                )
    return traced


def _of_conversations(common: Workload, choice: LoadChoice, traced: TracedSessions) -> Workload:
    """Return the workload of a trace of conversations; those with times are an open loop."""
    num_warmup = choice.num_warmup or 0
    if num_warmup >= len(traced.conversations):
        raise ConfigError(f"--warmup {num_warmup} leaves nothing of the trace to measure.")
    turns = [len(conversation.turns) for conversation in traced.conversations]
    is_timed = traced.conversations[0].turns[0].due_s is not None
    return replace(
        common,
        isl=1,
        num_requests=sum(turns[num_warmup:]),
        num_warmup=sum(turns[:num_warmup]),
        arrival=Arrival.TRACE if is_timed else Arrival.CLOSED,
        sessions=traced,
    )


def _seeded(workload: Workload, repeat: int) -> Workload:
    """Return the workload with a seed that no other run of the sweep has."""
    name = f"{workload.seed}:{workload.concurrency}:{repeat}"
    return replace(workload, seed=random.Random(name).randrange(MAX_SEED))


def _open(common: Workload, choice: LoadChoice, entries: tuple[TraceEntry, ...] | None) -> Workload:
    """Return the workload of a trace, or of a rate."""
    if entries is not None:
        num_warmup = choice.num_warmup or 0
        if num_warmup >= len(entries):
            raise ConfigError(f"--warmup {num_warmup} leaves nothing of the trace to measure.")
        return replace(
            common,
            isl=max(entry.isl for entry in entries),
            osl=max(entry.osl for entry in entries),
            num_requests=len(entries) - num_warmup,
            arrival=Arrival.TRACE,
            trace=entries,
        )
    assert choice.requests_per_s is not None  # the caller looked
    num_requests = choice.num_requests or 32
    return replace(
        common,
        num_requests=num_requests,
        num_warmup=round(OPEN_WARMUP_SHARE * num_requests)
        if choice.num_warmup is None
        else choice.num_warmup,
        arrival=Arrival.FIXED if choice.is_evenly_paced else Arrival.POISSON,
        requests_per_s=choice.requests_per_s,
    )


def parse_slos(items: tuple[str, ...]) -> dict[str, float]:
    """Return {"ttft_ms": 500.0} of items like ttft_ms:500; raises ConfigError."""
    slos = {}
    for item in items:
        name, _, limit = item.partition(":")
        if name not in REQUEST_METRICS:
            raise unknown_name("SLO metric", name, REQUEST_METRICS)
        try:
            slos[name] = float(limit)
        except ValueError:
            raise ConfigError(f"--slo {item!r} must be NAME:LIMIT, such as ttft_ms:500.") from None
    return slos


def parse_concurrencies(text: str) -> tuple[int, ...]:
    """Return the counts in "1,4,16"; raises ConfigError."""
    try:
        counts = tuple(int(item) for item in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise ConfigError(f"--concurrency {text!r} must be counts such as 8 or 1,4,16.")
    return counts
