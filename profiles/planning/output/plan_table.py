"""A plan as tables for a terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table

from nemotrt.profiles.planning.answers.arrivals import OpenLoop
from nemotrt.profiles.planning.answers.plan import Plan, Range
from nemotrt.profiles.planning.answers.search import CurvePoint
from nemotrt.profiles.planning.memory.capacity import GIB

MIB = 2**20
# Where stdout is no terminal, lines are not cut to 80 columns.
PIPE_WIDTH = 160


def plan_table(plan: Plan) -> RenderableType:
    """Return the plan beside its baseline, and the reason in words."""
    plans = [plan] if plan.baseline is None else [plan, plan.baseline]
    lengths = f"{plan.isl} in / {plan.osl} out"
    table = Table(title=f"{plan.gpu}, {plan.engine}, {plan.precision}, {lengths} (predicted)")
    table.add_column("")
    for one in plans:
        table.add_column(one.model, justify="right")
    columns = [_cells(one) for one in plans]
    for name in columns[0]:
        table.add_row(name, *(cells[name] for cells in columns))
    lines: list[RenderableType] = [table, *ratio_text(plan).splitlines()]
    built = [_engine_table(plan)] if plan.engines else []
    return Group(*lines, *note_lines(plan), *built)


def note_lines(plan: Plan) -> list[str]:
    """Return what must be known beside the figures, a line each; the baseline's own too."""
    theirs = plan.baseline.notes if plan.baseline else ()
    notes = [*plan.notes, *(note for note in theirs if note not in plan.notes)]
    record = f"errors on measured rows: {'; '.join(plan.track_record)}"
    return [f"Note: {note}." for note in (*notes, record, *_default_note(plan))]


def ratio_text(plan: Plan) -> str:
    """Return the ratio to the baseline and why, a line each; nothing without a baseline."""
    lines = [] if plan.ratio is None else [f"Ratio {_range(plan.ratio, '.2f')}."]
    if plan.reason is not None:
        lines.append(f"Why: {plan.reason.rstrip('.')}.")
    return "\n".join(lines)


ENGINE_TITLE = "What `nemotrt build` makes, each model at its largest batch (predicted)"
ENGINE_HEADS = ("backend", "sequences", "ratio", "notes")


def engine_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """Return a row for each backend's engine, under ENGINE_HEADS; none without a baseline."""
    return [
        (
            one.name,
            f"{one.max_batch_size} against {one.baseline_max_batch_size}" if one.ratio else "",
            _range(one.ratio, ".2f") if one.ratio else "none",
            "; ".join(one.notes),
        )
        for one in plan.engines
    ]


def engine_lines(plan: Plan) -> list[str]:
    """Return the table of backends a line each, for a page."""
    rows = engine_rows(plan)
    head = [f"{ENGINE_TITLE}:"] if rows else []
    return head + [
        f"{name}: {f'{held} sequences, ' if held else ''}ratio {ratio} ({notes})"
        for name, held, ratio, notes in rows
    ]


def _engine_table(plan: Plan) -> Table:
    """Return every backend's ratio as a table."""
    table = Table(title=ENGINE_TITLE)
    for name in ENGINE_HEADS:
        table.add_column(name)
    for row in engine_rows(plan):
        table.add_row(*row)
    return table


def _cells(plan: Plan) -> dict[str, str]:
    step = plan.decode_step_ms
    cells = {
        "linears, KV cache, states": f"{plan.precision}, {plan.kv_dtype}, {plan.ssm_dtype}",
        "weights": f"{plan.weights_bytes / GIB:.2f} GiB",
        "KV cache per token": f"{plan.kv_cache_bytes_per_token:,} B",
        "SSM state per request": f"{plan.ssm_state_bytes_per_request / MIB:.1f} MiB",
        "conv state per request": f"{plan.conv_state_bytes_per_request / MIB:.1f} MiB",
        "one request": f"{plan.request_bytes / GIB:.3f} GiB",
        "activations": f"{plan.workspace_bytes / GIB:.2f} GiB",
        "largest batch": f"{plan.max_batch_size} (limited by {plan.limited_by})",
        "longest sequence at batch 1": f"{plan.max_seq_len_at_batch_1:,} tokens",
        "users, batch": f"{plan.concurrency}, {plan.batch_size}",
        "tokens/s": _range(plan.tokens_per_s, ".1f"),
        "time to first token": f"{plan.ttft_ms:.0f} ms (half {plan.ttft_p50_ms:.0f}, 95 % "
        f"{plan.ttft_p95_ms:.0f}; {plan.ttft_burst_ms:.0f} in a burst)",
        "time per output token": f"{plan.tpot_ms:.2f} ms",
        "decode step": f"{step.total:.2f} ms (mostly {plan.bound_by})",
        "  weights": f"{step.weights:.2f} ms",
        "  attention": f"{step.attention:.2f} ms",
        "  SSM state": f"{step.ssm:.2f} ms",
        "  elementwise": f"{step.elementwise:.2f} ms",
        "  overhead": f"{step.overhead:.2f} ms",
    }
    if plan.speculation:
        cells["speculation"] = speculation_text(plan)
    if plan.tp > 1:
        cells["  interconnect"] = f"{step.interconnect:.2f} ms"
    if plan.queue_ms:
        cells["  wait for a slot"] = f"{plan.queue_ms / 1e3:.0f} s"
    if plan.power_w is not None:
        cells["power"] = f"{_range(plan.power_w, '.0f')} W"
    if plan.joules_per_token is not None:
        cells["energy per token"] = f"{_range(plan.joules_per_token, '.3g')} J"
    if plan.usd_per_million_tokens is not None:
        cells["price per 10^6 tokens"] = f"{_range(plan.usd_per_million_tokens, '.3g')} USD"
    return cells


def speculation_text(plan: Plan) -> str:
    """Return what guesses bring a plan that has them."""
    found = plan.speculation
    assert found is not None  # the caller looked
    ratio = plan.tokens_per_s.best / found.plain_tokens_per_s
    needed = found.break_even_accepted
    worth = "not even if all hold" if needed is None else f"from {needed:.2f} on"
    return (
        f"{found.accepted:g} of {found.guesses} hold, {ratio:.2f} times the tokens/s without; "
        f"worth it {worth}"
    )


def _range(value: Range, spec: str) -> str:
    return f"{value.best:{spec}} ({value.low:{spec}} to {value.high:{spec}})"


def _default_note(plan: Plan) -> list[str]:
    if not plan.default_corrections:
        return []
    names = ", ".join(plan.default_corrections)
    return [f"not measured on {plan.gpu}, so with default bands: {names}"]


def curve_table(points: Sequence[CurvePoint]) -> Table:
    """Return throughput and latency against users."""
    table = Table(title="Throughput and latency")
    for name in ("users", "batch", "tokens/s", "first token", "per output token"):
        table.add_column(name, justify="right")
    for point in points:
        table.add_row(
            str(point.concurrency),
            str(point.batch_size),
            _range(point.tokens_per_s, ".1f"),
            f"{point.ttft_ms:.0f} ms",
            f"{point.tpot_ms:.2f} ms",
        )
    return table


def arrivals_table(found: OpenLoop) -> Table:
    """Return what requests at a rate get, and where it breaks."""
    table = Table(show_header=False, title=f"{found.rate_per_s:g} requests/s at random (predicted)")
    rows = {
        "of what a full batch answers": f"{found.share_of_saturation:.0%} of "
        f"{found.saturation_per_s:.3g}/s",
        "time to first token": f"{found.ttft_ms:.0f} ms (half {found.ttft_p50_ms:.0f}, 95 % "
        f"{found.ttft_p95_ms:.0f})",
        "time per output token": f"{found.tpot_ms:.2f} ms",
    }
    if found.breaks_at_per_s is not None:
        rows["highest rate within the target"] = f"{found.breaks_at_per_s:.3g}/s"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def print_tables(tables: Sequence[RenderableType]) -> None:
    """Print to stdout, in colour only on a terminal."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    for table in tables:
        console.print(table)
