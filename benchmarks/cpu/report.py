"""The results as a table on stdout, and as one self-contained HTML page."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from context import ContextTime
from result import Error, Result

from nemotrt.charts.chart import Chart

BAR_HEIGHT, LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH = 18, 150, 330, 240


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
    style = (resources.files("nemotrt.profiles.reports") / "style.css").read_text()
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>CPU engines</title>"
        f"<style>{style}</style><h1>CPU engines on this machine</h1>",
        f"<p class=verdict>{escape(verdict(results))}</p>",
        f"<p>{escape(limits_line(machine))}</p>",
    ]
    for model in dict.fromkeys(result.model for result in results):
        parts.append(f"<h2>{escape(model)}, tokens/s</h2><div class=plots>")
        for case in dict.fromkeys(result.case for result in results):
            rows = [r for r in results if (r.model, r.case) == (model, case)]
            parts.append(bars(f"{model}: {case}", rows, results))
        parts.append("</div>")
    if contexts:
        parts.append(f"<h2>Decode against context</h2>{context_chart(contexts)}")
    parts.append(_table(results, errors))
    path.write_text("".join(parts), encoding="utf-8")


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


def bars(title: str, rows: Sequence[Result], results: Sequence[Result]) -> str:
    """Return a bar chart of one case; the median is the darker mark on a bar."""
    most = max(row.best for row in rows)
    width, height = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH, BAR_HEIGHT * len(rows) + 4
    marks = []
    for index, row in enumerate(rows):
        y = 2 + BAR_HEIGHT * index
        style = "f1" if row.engine == "native" else "f4"
        ratio = ratios(results, row)
        share = f", {row.roofline_share:.0%} of roofline" if row.roofline_share else ""
        is_peer = ratio is not None and row.engine != "native"
        compared = f"; native {ratio[0]:.2f}x" if ratio is not None and is_peer else ""
        marks.append(
            f'<text x="{LABEL_WIDTH - 6}" y="{y + 12}" text-anchor="end">{escape(row.label)}</text>'
            f'<rect class="{style}" x="{LABEL_WIDTH}" y="{y}" height="{BAR_HEIGHT - 4}" '
            f'width="{BAR_WIDTH * row.best / most:.1f}"/>'
            f'<rect class="f2" x="{LABEL_WIDTH + BAR_WIDTH * row.median / most:.1f}" y="{y}" '
            f'height="{BAR_HEIGHT - 4}" width="2"/>'
            f'<text x="{LABEL_WIDTH + BAR_WIDTH * row.best / most + 6:.1f}" y="{y + 12}">'
            f"{row.best:.1f}{share}{compared}</text>"
        )
    return (
        f"<figure><figcaption>{escape(title)}<span class=key><i class=f2></i>median</span>"
        f'</figcaption><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(marks)}</svg></figure>'
    )


def context_chart(contexts: Sequence[ContextTime]) -> str:
    """Return milliseconds a step against held tokens."""
    longest = max(row.held_tokens for row in contexts)
    slowest = max(row.median_ms for row in contexts)
    title = "One decode step of one sequence, native int8-wo (best of the calls)"
    chart = Chart(title, "held tokens", "ms a step", (0, longest), (0, slowest))
    for style, model in zip(
        ("c1", "c2"), dict.fromkeys(row.model for row in contexts), strict=False
    ):
        points = [(row.held_tokens, row.best_ms) for row in contexts if row.model == model]
        chart.line([(float(x), y) for x, y in points], style, model)
    return chart.svg()


def _table(results: Sequence[Result], errors: Sequence[Error]) -> str:
    """Return all figures as tables."""
    rows = "".join(
        f"<tr><td>{escape(r.model)}<td>{escape(r.case)}<td>{escape(r.label)}"
        f"<td class=n>{r.best:.1f}<td class=n>{r.median:.1f}<td class=n>{r.num_calls}"
        f"<td class=n>{_share(r.roofline_share)}<td class=n>{r.peak_bytes / 2**20:.0f}"
        for r in results
    )
    heads = ("model", "case", "engine", "tokens/s", "median", "calls", "roofline", "peak MiB")
    off = "".join(
        f"<tr><td>{escape(e.model)}<td>{escape(e.label)}<td class=n>{e.max_abs:.3g}"
        f"<td class=n>{e.rms:.3g}<td class=n>{e.rms_of_std:.3%}<td class=n>{e.top1_agreement:.0%}"
        for e in errors
    )
    words = ("model", "engine", "max error", "rms error", "rms / std", "top-1 agreement")
    return (
        f"<h2>All figures</h2><table><tr>{_heads(heads)}{rows}</table>"
        "<h2>Logits against transformers in float32</h2>"
        f"<table><tr>{_heads(words)}{off}</table>"
    )


def _heads(names: Sequence[str]) -> str:
    return "".join(f"<th>{escape(name)}" for name in names)


def _share(share: float | None) -> str:
    return f"{share:.0%}" if share else ""
