"""Agents' conversations on our server and on llama.cpp's: what a kept state is worth.

Run: python benchmarks/sessions.py [--model mid] [--agents 8] [--turns 12] [--smoke]

Both servers have the same weights (int8 beside Q8_0), the same threads, and get the same bytes:
`nemotrt profile`'s own agents, whose history is scripted. Three things are measured:

turns      Agents take turns, one request at a time, so that nobody queues: the time to the first
           token of turn 2 and later, beside that of a prompt of the new tokens alone; and how much
           of what a prompt shares with earlier ones was cached. Of our engine also the time of the
           new tokens where the history is in place: they attend to it, cached or not.
short      Behind --history tokens the assistant calls a tool, which answers --short tokens.
no cache   The turn at --history tokens, and the short one, on our server without its prefix cache.
           A turn can't be faster by more than its prompt's tokens over its new ones, or about so.
at once    --at-once agents at the same time, as `nemotrt profile --preset agents`: sessions/s.

It needs a quiet machine. llama.cpp is built once (about ten minutes); its settings are in
cpu/llama_server.py. Writes results.json and report.html to --output, and prints a table.
"""

import asyncio
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.charts.page import write_plot
from nemotrt.charts.spec import About, Lines, Series
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.profiles.runs import measure
from nemotrt.serve.processes.launcher import serve_engine

sys.path.insert(0, str(Path(__file__).parent / "cpu"))

from llama_server import SETTINGS, serve_llama
from speaking import speaking_checkpoint, speaking_gguf
from turns import (
    Row,
    Short,
    Size,
    in_place_ms,
    take_short_turns,
    take_turns,
    target_of,
    without_cache,
)

OURS, LLAMA = "nemotrt", "llama.cpp"
CHUNK_TOKENS = 512
SMOKE = {"model": "tiny", "agents": 2, "turns": 3, "isl": 64, "osl": 16, "system_tokens": 256}
SMOKE |= {"at_once": 2, "history": 512, "short": 32}


@dataclass(frozen=True, slots=True)
class Found:
    """What one server did."""

    server: str
    rows: list[Row]
    short: list[Short]
    sessions_per_s: float
    tokens_per_s: float
    cached_share: float | None

    @property
    def later(self) -> list[Row]:
        """Turns that have a history."""
        return [row for row in self.rows if row.turn > 1]

    @property
    def ratio_to_new(self) -> float:
        """Time to a later turn's first token over that of its new tokens alone, both medians."""
        later = statistics.median(row.ttft_ms / row.new_tokens for row in self.later)
        return later / statistics.median(row.alone_ms / row.new_tokens for row in self.later)

    @property
    def hit_rate(self) -> float | None:
        """Cached over cachable tokens of all turns but the very first; None: it does not tell."""
        told = [row for row in self.rows if row.cached_tokens is not None and row.cachable_tokens]
        total = sum(row.cachable_tokens for row in told)
        return sum(row.cached_tokens or 0 for row in told) / total if total else None

    def at(self, turn: int) -> list[Row]:
        """Return the rows of a turn."""
        return [row for row in self.rows if row.turn == turn]


def measured(name: str, serve: Callable[[], Any], size: Size, checkpoint: Path) -> Found:
    """Return what a server does; each part has it to itself, started anew."""
    with serve() as url:
        click.echo(f"{name}: turns", err=True)
        rows = asyncio.run(take_turns(url, size, checkpoint))
        short = asyncio.run(take_short_turns(url, size, checkpoint, rows))
    with serve() as url:
        click.echo(f"{name}: {size.at_once} at once", err=True)
        result = measure.run(target_of(url, size, checkpoint), size.load)
    if result.status != "complete":
        raise SystemExit(f"{name}: {result.reason}")
    share = result.metrics["cached_share"].value
    rates = result.metric("sessions_per_s"), result.metric("tokens_per_s")
    return Found(name, rows, short, *rates, share)


@contextmanager
def our_server(engine: Path, size: Size, cache_gib: float) -> Iterator[str]:
    """Yield the address of our server, without Triton between."""
    options = ["--no-triton", "--threads", str(size.num_threads)]
    options += ["--prefix-cache-gib", str(cache_gib)]
    with serve_engine(engine, *options) as state:
        yield state.openai_url.removesuffix("/v1")


def engine_of(checkpoint: Path, size: Size, folder: Path) -> Path:
    """Return our engine, built if need be."""
    slots = max(size.agents, size.at_once)
    target = folder / f"{size.model}-{slots}-{size.max_seq_len}"
    if not target.exists():
        limits = Limits(slots, size.max_seq_len, CHUNK_TOKENS)
        build_engine(
            checkpoint, target, BuildSpec("native", precision=Precision.INT8_WO, limits=limits)
        )
    return target


def summary(
    size: Size, found: list[Found], no_cache_ms: tuple[float, float], in_place: list[float]
) -> list[dict[str, object]]:
    """Return the figures that the claims are about."""
    rows: list[dict[str, object]] = []
    for one in found:
        turn = one.at(size.history_turn)
        at = statistics.median(row.ttft_ms for row in turn)
        short = statistics.median(row.ttft_ms for row in one.short)
        row: dict[str, object] = {
            "server": one.server,
            "ttft_over_new_alone": round(one.ratio_to_new, 3),
            "hit_rate": None if one.hit_rate is None else round(one.hit_rate, 4),
            "ttft_ms_at_history": round(at, 1),
            "tokens_at_history": [turn[0].isl, turn[0].new_tokens],
            "short_ttft_ms": round(short, 1),
            "short_tokens": [one.short[0].isl, one.short[0].new_tokens],
            "sessions_per_s": round(one.sessions_per_s, 4),
            "tokens_per_s": round(one.tokens_per_s, 2),
            "cached_share_at_once": one.cached_share and round(one.cached_share, 4),
        }
        if one.server == OURS:
            ratios = [row.ttft_ms / in_place[row.turn - 1] for row in one.later]
            row["ttft_over_new_in_place"] = round(statistics.median(ratios), 3)
            row["without_cache_ms"] = round(no_cache_ms[0], 1)
            row["times_faster_than_without"] = round(no_cache_ms[0] / at, 1)
            row["short_times_faster_than_without"] = round(no_cache_ms[1] / short, 1)
        rows.append(row)
    rates = {one.server: one.sessions_per_s for one in found}
    if len(rates) > 1:
        rows.append({"sessions_per_s_over_llama_cpp": round(rates[OURS] / rates[LLAMA], 2)})
    return rows


def write(
    folder: Path,
    size: Size,
    settings: dict[str, str],
    found: list[Found],
    rows: list[dict[str, object]],
) -> None:
    """Write results.json and report.html."""
    told = {"size": asdict(size), "llama_cpp_settings": settings, "summary": rows}
    told |= {"servers": [asdict(one) for one in found], "load_average": os.getloadavg()[0]}
    (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n")
    lines = []
    for one in found:
        for name, value in (("", lambda row: row.ttft_ms), (", new alone", lambda r: r.alone_ms)):
            by_turn = {
                turn: statistics.median(value(r) for r in one.rows if r.turn == turn)
                for turn in range(1, size.turns + 1)
            }
            points = tuple((float(turn), ms) for turn, ms in by_turn.items())
            lines.append(Series(one.server + name, points))
    chart = Lines("Time to first token by turn, one request at a time (median)", "turn", "ms",
                  tuple(lines))  # fmt: skip
    about = About(
        f"Agents' conversations: {size.model}, {size.agents} agents, {size.turns} turns",
        assumptions=tuple(asdict(size).items()) + tuple(settings.items()),
        notes=tuple(json.dumps(row) for row in rows),
    )
    write_plot(folder / "report.html", about, [chart], is_overwrite=True)


@click.command()
@click.option("--model", type=click.Choice(("tiny", "mid", "wide", "quarter")), default="mid")
@click.option("--agents", type=click.IntRange(1), default=8)
@click.option("--turns", type=click.IntRange(2), default=12)
@click.option("--isl", type=click.IntRange(1), default=1024, help="What a turn adds.")
@click.option("--osl", type=click.IntRange(2), default=128)
@click.option("--system-tokens", type=click.IntRange(0), default=2048)
@click.option("--at-once", type=click.IntRange(1), default=4)
@click.option("--history", type=click.IntRange(1), default=8192, help="Compared without a cache.")
@click.option(
    "--short", type=click.IntRange(1), default=128, help="What a tool's short answer has."
)
@click.option("--threads", "num_threads", type=click.IntRange(1), default=os.cpu_count() or 1)
@click.option("--cache-gib", type=float, default=4.0, help="Of our server's kept states.")
@click.option("--only", type=click.Choice((OURS, LLAMA)), help="One server alone.")
@click.option("--llama", multiple=True, metavar="NAME[=VALUE]", help="Of llama-server, over ours.")
@click.option("--smoke", is_flag=True, help="The tiny model and short conversations: a minute.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("/tmp/nemotrt-sessions"))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("sessions"))
def main(
    only: str | None, llama: tuple[str, ...], smoke: bool, folder: Path, output: Path, **given: Any
) -> None:
    """Measure both servers, print one JSON object a line."""
    more = {f"--{name}": value for name, _, value in (item.partition("=") for item in llama)}
    settings = SETTINGS | more
    size = replace(Size(**given), **SMOKE) if smoke else Size(**given)
    output.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = speaking_checkpoint(size.model, folder)
    found: list[Found] = []
    no_cache_ms, in_place = (0.0, 0.0), list[float]()
    if only != LLAMA:
        engine = engine_of(checkpoint, size, folder)
        serve = lambda: our_server(engine, size, size.cache_gib)  # noqa: E731
        found.append(measured(OURS, serve, size, checkpoint))
        with our_server(engine, size, 0.0) as url:
            no_cache_ms = asyncio.run(without_cache(url, size, checkpoint))
        in_place = in_place_ms(engine, size.num_threads, found[0].rows)
    if only != OURS:
        model = speaking_gguf(checkpoint, "q8_0", folder / f"{size.model}.speaking.gguf")
        slots, log = max(size.agents, size.at_once), output / "llama-server.log"
        limits = (slots, size.max_seq_len, size.num_threads)
        peer = lambda: serve_llama(model, *limits, log, settings)  # noqa: E731
        found.append(measured(LLAMA, peer, size, checkpoint))
    rows = summary(size, found, no_cache_ms, in_place)
    write(output, size, settings, found, rows)
    for row in rows:
        click.echo(json.dumps(row))


if __name__ == "__main__":
    main()
