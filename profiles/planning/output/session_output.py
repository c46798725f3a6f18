"""Agents' sessions as a table, as lines and as a chart."""

from rich.table import Table

from nemotrt.charts.spec import Lines, Series
from nemotrt.profiles.planning.answers.plan import Range
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.sessions.answer import SessionRate, SessionsPlan

MIB = 2**20
UNKNOWN = "not known"


def sessions_table(plan: SessionsPlan) -> Table:
    """Return what agents get, with their prefixes kept and without."""
    table = Table(title=f"{_title(plan)} (predicted)")
    table.add_column("")
    for name in ("prefixes kept", "nothing kept"):
        table.add_column(name, justify="right")
    for name, kept, cold in _rows(plan):
        table.add_row(name, kept, cold)
    return table


def session_lines(plan: SessionsPlan) -> list[str]:
    """Return the table a line each, and what is assumed, for a page."""
    said = [
        f"{name.strip()}: {kept}{f' (nothing kept: {cold})' if cold else ''}"
        for name, kept, cold in _rows(plan)
    ]
    return [f"{_title(plan)}:", *said, *note_lines(plan)]


def note_lines(plan: SessionsPlan) -> list[str]:
    """Return what is assumed, a line each."""
    return [f"Note: {note}." for note in plan.notes]


def sessions_chart(plan: SessionsPlan) -> Lines:
    """Return the time to the first token by turn, of a session that has the engine to itself."""
    cold = tuple((float(time.turn), time.cold_ttft_ms) for time in plan.by_turn)
    kept = tuple(
        (float(time.turn), time.kept_ttft_ms)
        for time in plan.by_turn
        if time.kept_ttft_ms is not None
    )
    named = [("prefixes kept", kept), ("nothing kept", cold)]
    series = tuple(Series(name, points) for name, points in named if points)
    return Lines("Time to first token by turn, one session alone", "turn", "ms", series)


def _title(plan: SessionsPlan) -> str:
    load = plan.load
    return (
        f"{load.concurrency} agents, {load.num_turns} turns to {load.longest_tokens:,} tokens, "
        f"{load.system_tokens:,} of them shared"
    )


def _rows(plan: SessionsPlan) -> list[tuple[str, str, str]]:
    """Return what is told: its name, with prefixes kept, and with nothing kept."""
    memory = plan.memory
    rows = [
        ("a turn's new tokens, answer", f"{plan.load.isl}, {plan.load.osl}", ""),
        ("a prefix may end at", plan.boundary.value, ""),
        ("one kept state", f"{memory.state_bytes / MIB:.1f} MiB", ""),
        ("kept KV cache per token", f"{memory.kv_bytes_per_token:,} B", ""),
        ("one session, the shared text", _sizes(memory.session_bytes, memory.shared_bytes), ""),
    ]
    if plan.prefix_cache_bytes is not None:
        rows.append(("host memory for states", f"{plan.prefix_cache_bytes / GIB:.2f} GiB", ""))
    warm = UNKNOWN if plan.warm_sessions is None else f"{plan.warm_sessions:,}"
    rows += [
        ("sessions that stay warm", warm, "0"),
        ("sessions that run at once", *_twice(plan.slots)),
    ]
    chosen = sorted(
        {0, 1, len(plan.by_turn) // 2, len(plan.by_turn) - 1} & set(range(plan.load.num_turns))
    )
    for time in (plan.by_turn[place] for place in chosen):
        name = f"turn {time.turn}, {time.prompt_tokens:,} tokens, alone"
        kept = UNKNOWN
        if time.kept_ttft_ms is not None:
            kept = f"{time.kept_ttft_ms:.0f} ms ({time.cached_tokens:,} kept)"
        rows.append((name, kept, f"{time.cold_ttft_ms:.0f} ms"))
    cells = [_cells(rate) if rate else {} for rate in (plan.kept, plan.cold)]
    rows += [(name, cells[0].get(name, UNKNOWN), cold) for name, cold in cells[1].items()]
    return rows


def _cells(rate: SessionRate) -> dict[str, str]:
    cells = {
        "prompt tokens not computed": f"{rate.hit_share:.1%}",
        "time to first token, all at once": f"{rate.ttft_ms:.0f} ms",
        "  of it, wait for a slot": f"{rate.queue_ms:.0f} ms",
        "time per output token": f"{rate.tpot_ms:.2f} ms",
        "requests that run": f"{rate.running:.1f}",
        "sessions per hour": _per_hour(rate.sessions_per_s),
    }
    if rate.agents_in_target is not None:
        cells["agents within the target"] = f"{rate.agents_in_target:,}"
    return cells


def _per_hour(rate: Range) -> str:
    low, best, high = (3600 * value for value in (rate.low, rate.best, rate.high))
    return f"{best:.0f} ({low:.0f} to {high:.0f})"


def _sizes(*sizes: int) -> str:
    return ", ".join(f"{size / GIB:.3f} GiB" for size in sizes)


def _twice(count: int) -> tuple[str, str]:
    return f"{count:,}", f"{count:,}"
