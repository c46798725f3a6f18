"""The results as a table on stdout, and as one self-contained HTML page."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from context import ContextTime
from result import Error, Result

from nemotrt.charts.page import page, plots, table
from nemotrt.charts.spec import About, Bars, Lines, Series


def native_of(results: Sequence[Result], result: Result) -> Result | None:
    """Return our native engine's result in the same model, case and group."""
    place = (result.model, result.case, result.group)
    same = (other for other in results if (other.model, other.case, other.group) == place)
    return next((other for other in same if other.engine == "native"), None)


def ratios(results: Sequence[Result], result: Result) -> tuple[float, float] | None:
    """Return how many times as fast native is, at best and in the median."""
    native = native_of(results, result)
    return (native.best / result.best, native.median / result.median) if native else None


def print_table(results: Sequence[Result], errors: Sequence[Error]) -> None:
    """Print tokens a second, what native is to it, and the share of the roofline."""
    heads = f"{'tokens/s':>10}{'median':>9}{'native is':>11}{'median':>8}{'roofline':>10}"
    print(f"{'':48}{heads}")
    for result in results:
        ratio = ratios(results, result)
        compared = f"{ratio[0]:10.2f}x{ratio[1]:7.2f}x" if ratio else " " * 19
        share = f"{result.roofline_share:10.0%}" if result.roofline_share else ""
        print(
            f"{result.model:6}{result.case:20}{result.label:22}{result.best:10.1f}"
            f"{result.median:9.1f}{compared}{share}"
        )
    for error in errors:
        print(
            f"{error.model:6}{'logits':20}{error.label:22}max {error.max_abs:.2g}, "
            f"rms {error.rms:.2g} ({error.rms_of_std:.2%} of std), top-1 {error.top1_agreement:.0%}"
        )
    print(flush=True)


def write_page(
    path: Path,
    results: Sequence[Result],
    errors: Sequence[Error],
    contexts: Sequence[ContextTime],
    machine: dict[str, Any],
) -> None:
    """Write the page."""
    parts = []
    for model in dict.fromkeys(result.model for result in results):
        charts = []
        for case in dict.fromkeys(result.case for result in results):
            rows = [r for r in results if (r.model, r.case) == (model, case)]
            charts.append(bars(f"{model}: {case}", rows, results))
        parts.append(f"<h2>{escape(model)}, tokens/s</h2>{plots(charts)}")
    if contexts:
        parts.append(f"<h2>Decode against context</h2>{plots([context_chart(contexts)])}")
    parts.append(_table(results, errors))
    about = About("CPU engines on this machine", verdict(results), notes=(limits_line(machine),))
    path.write_text(page(about, "".join(parts)), encoding="utf-8")


def verdict(results: Sequence[Result]) -> str:
    """Return the range of ratios to each peer, at best."""
    words = []
    for label in dict.fromkeys(r.label for r in results if r.engine != "native"):
        found = [ratios(results, r) for r in results if r.label == label]
        best = [ratio[0] for ratio in found if ratio]
        if best:
            words.append(f"{min(best):.1f} to {max(best):.1f} times {label}")
    return f"native is {'; '.join(words)}." if words else ""


def limits_line(machine: dict[str, Any]) -> str:
    """Return the machine's limits in words."""
    return (
        f"Limits measured in this run, {machine['num_threads']} threads: memory read "
        f"{machine['read_bytes_per_s'] / 1e9:.1f} GB/s, updated in place "
        f"{machine['update_bytes_per_s'] / 1e9:.1f} GB/s; float32 "
        f"{machine['float_ops_per_s'] / 1e9:.0f} and int16 {machine['int16_ops_per_s'] / 1e9:.0f} "
        "Gop/s. The roofline of a step sums each operator's: its bytes, or its operations in "
        "int16 for int8 weights and float32 for others, whichever takes longer. What fits a cache "
        "may exceed it."
    )


def bars(title: str, rows: Sequence[Result], results: Sequence[Result]) -> Bars:
    """Return a bar chart of one case; the median is the mark on a bar."""
    texts = []
    for row in rows:
        ratio = ratios(results, row)
        share = f", {row.roofline_share:.0%} of roofline" if row.roofline_share else ""
        is_peer = ratio is not None and row.engine != "native"
        compared = f"; native {ratio[0]:.2f}x" if ratio is not None and is_peer else ""
        texts.append(f"{row.best:.1f}{share}{compared}")
    own = tuple(row.best * (row.engine == "native") for row in rows)
    others = tuple(row.best * (row.engine != "native") for row in rows)
    return Bars(
        title,
        "tokens/s",
        tuple(row.label for row in rows),
        (("native", own), ("others", others)),
        quiet=("others",),
        texts=tuple(texts),
        marks=tuple(row.median for row in rows),
        mark_name="median",
    )


def context_chart(contexts: Sequence[ContextTime]) -> Lines:
    """Return milliseconds a step against held tokens."""
    title = "One decode step of one sequence, native int8-wo (best of the calls)"
    series = (
        Series(m, tuple((float(r.held_tokens), r.best_ms) for r in contexts if r.model == m))
        for m in dict.fromkeys(row.model for row in contexts)
    )
    return Lines(title, "held tokens", "ms a step", tuple(series))


def _table(results: Sequence[Result], errors: Sequence[Error]) -> str:
    """Return all figures as tables."""
    rows = (
        (r.model, r.case, r.label, f"{r.best:.1f}", f"{r.median:.1f}", r.num_calls,
         f"{r.roofline_share:.0%}" if r.roofline_share else "", f"{r.peak_bytes / 2**20:.0f}")
        for r in results
    )  # fmt: skip
    heads = ("model", "case", "engine", "tokens/s", "median", "calls", "roofline", "peak MiB")
    off = (
        (e.model, e.label, f"{e.max_abs:.3g}", f"{e.rms:.3g}", f"{e.rms_of_std:.3%}",
         f"{e.top1_agreement:.0%}")
        for e in errors
    )  # fmt: skip
    words = ("model", "engine", "max error", "rms error", "rms / std", "top-1 agreement")
    return (
        f"<h2>All figures</h2>{table(heads, rows, 3)}"
        f"<h2>Logits against transformers in float32</h2>{table(words, off, 2)}"
    )
