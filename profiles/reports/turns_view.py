"""Conversations turn by turn: a chart of the first token's time, one of the prompts, a table."""

from collections.abc import Callable, Sequence

from nemotrt.charts.number import number
from nemotrt.charts.page import plots, table
from nemotrt.charts.spec import Bars, Chart, Lines, Series
from nemotrt.profiles.runs.record.result import TurnRecord
from nemotrt.profiles.runs.record.statistics import Statistics

Times = Callable[[TurnRecord], Statistics | None]
HEADS = ("turn", "requests", "prompt", "new", "cached")
TIMES: tuple[tuple[str, Times], ...] = (
    ("all", lambda turn: turn.ttft_ms),
    ("warm", lambda turn: turn.warm_ttft_ms),
    ("cold", lambda turn: turn.cold_ttft_ms),
)
NOT_TOLD = "not told"


def turns_section(turns: Sequence[TurnRecord]) -> str:
    """Return the page's part, "" without conversations."""
    if not turns:
        return ""
    heads = [f"{name}, tokens" if name in HEADS[2:] else name for name in HEADS]
    heads += [f"ttft ms, {name}, {part}" for name, _ in TIMES for part in ("p50", "p99")]
    return plots(charts(turns)) + table(heads, map(_cells, turns))


def charts(turns: Sequence[TurnRecord]) -> list[Chart]:
    """Return the times to the first token over the turns, and what the prompts were made of."""
    is_told = any(turn.warm_ttft_ms or turn.cold_ttft_ms for turn in turns)
    shown = TIMES[1:] if is_told else TIMES[:1]
    lines = tuple(line for name, times in shown if (line := _line(name, times, turns)).points)
    drawn: list[Chart] = [
        Lines("Time to first token by turn (median, least to 99th percentile)", "turn", "ms", lines)
    ]
    if all(turn.cached_tokens is not None for turn in turns):
        cached = tuple(turn.cached_tokens or 0.0 for turn in turns)
        rest = tuple(max(t.isl - c, 0.0) for t, c in zip(turns, cached, strict=True))
        names = tuple(f"turn {turn.turn}" for turn in turns)
        parts = (("computed", rest), ("from the cache", cached))
        drawn.append(
            Bars("Prompt tokens by turn (median)", "tokens", names, parts, is_upright=True)
        )
    return drawn


def text_table(turns: Sequence[TurnRecord]) -> list[str]:
    """Return the lines of a table for a terminal."""
    lines = ["".join(f"{name:>10}" for name in HEADS) + f"{'ttft p50':>12}{'warm':>10}{'cold':>10}"]
    for turn in turns:
        cells = _cells(turn)
        times = cells[len(HEADS) :: 2]
        lines.append(
            "".join(f"{cell:>10}" for cell in cells[: len(HEADS)])
            + f"{times[0]:>12}{times[1]:>10}{times[2]:>10}"
        )
    return lines


def _cells(turn: TurnRecord) -> list[str]:
    """Return a turn's figures in the order of the heads."""
    cached = NOT_TOLD if turn.cached_tokens is None else number(turn.cached_tokens)
    cells = [str(turn.turn), str(turn.num_requests), number(turn.isl), number(turn.new_tokens)]
    cells.append(cached)
    for _, times in TIMES:
        found = times(turn)
        cells += ["-", "-"] if found is None else [number(found.p50), number(found.p99)]
    return cells


def _line(name: str, times: Times, turns: Sequence[TurnRecord]) -> Series:
    """Return the medians over the turns that have such requests, with their spread."""
    found = [(float(turn.turn), stats) for turn in turns if (stats := times(turn)) is not None]
    return Series(
        name,
        tuple((turn, stats.p50) for turn, stats in found),
        band=tuple((stats.min, stats.p99) for _, stats in found),
    )
