"""One page of several runs: throughput against latency, and a table."""

from collections.abc import Sequence
from pathlib import Path

from nemotrt.charts.number import number
from nemotrt.charts.page import page, plots
from nemotrt.charts.spec import About, Lines
from nemotrt.charts.spec import Series as Curve
from nemotrt.files.writing import write_file
from nemotrt.profiles.reports.environment import environment
from nemotrt.profiles.runs.record.identity import line_names
from nemotrt.profiles.runs.record.result import ProfileResult, Status

COLUMNS = (
    ("tokens_per_s", "p50"),
    ("tokens_per_s_per_user", "mean"),
    ("requests_per_s", "p50"),
    ("ttft_ms", "p50"),
    ("ttft_ms", "p99"),
    ("tpot_ms", "p50"),
    ("tpot_ms", "p99"),
    ("e2e_latency_ms", "p50"),
    ("error_rate", "p50"),
)
Series = dict[str, list[ProfileResult]]


def write_comparison(results: Sequence[ProfileResult], path: Path, *, verdict: str = "") -> None:
    """Write the page whole or not at all; `verdict` is its first sentence."""
    write_file(path, render_comparison(results, verdict))


def render_comparison(results: Sequence[ProfileResult], verdict: str = "") -> str:
    """Return the page."""
    names = line_names(results)
    lead = verdict or _verdict(_complete(results), len(results))
    title = f"nemotrt profile \N{MIDDLE DOT} {len(results)} runs"
    return page(About(title, lead), plots(curves(results, names)) + runs_table(results, names))


def curves(results: Sequence[ProfileResult], names: Sequence[str]) -> list[Lines]:
    """Return throughput over latency and users; the complete runs of one name are one line."""
    series: Series = {}
    for name, result in zip(names, results, strict=True):
        if result.status is Status.COMPLETE:
            series.setdefault(name, []).append(result)
    for runs in series.values():
        runs.sort(key=lambda result: result.workload.concurrency)
    drawn = [
        _curve(series, "Throughput against latency", "tpot_ms", "p50"),
        _curve(series, "Throughput against time to first token", "ttft_ms", "p99"),
        _curve(series, "Throughput against concurrency", "concurrency", ""),
    ]
    return [chart for chart in drawn if chart]


def runs_table(results: Sequence[ProfileResult], names: Sequence[str]) -> str:
    """Return every run's figures, also of those that are not complete."""
    template = environment().get_template("comparison.html.jinja")
    rows = list(zip(names, results, strict=True))
    # an older run has not every metric
    columns = [c for c in COLUMNS if all(c[0] in result.metrics for result in results)]
    return template.render(rows=rows, results=results, columns=columns)


def _complete(results: Sequence[ProfileResult]) -> list[ProfileResult]:
    return [result for result in results if result.status is Status.COMPLETE]


def _verdict(complete: Sequence[ProfileResult], num_runs: int) -> str:
    """Return the page's first sentence."""
    rated = [result for result in complete if result.metrics["tokens_per_s"].value is not None]
    if not rated:
        return f"None of {num_runs} runs is complete."
    best = max(rated, key=lambda result: result.metric("tokens_per_s"))
    return (
        f"{number(best.metric('tokens_per_s'))} tokens/s at best, with "
        f"{best.workload.concurrency} at a time; {len(complete)} of {num_runs} runs are complete."
    )


def _curve(series: Series, title: str, name: str, statistic: str) -> Lines | None:
    """Return a curve a target: throughput over one latency, a point a run."""
    curves = [
        Curve(key, tuple(filter(None, (_point(result, name, statistic) for result in runs))))
        for key, runs in series.items()
    ]
    drawn = tuple(curve for curve in curves if curve.points)
    x_label = name if not statistic else f"{name}, {statistic}"
    return Lines(title, x_label, "tokens/s", drawn) if drawn else None


def _point(result: ProfileResult, name: str, statistic: str) -> tuple[float, float] | None:
    """Return latency and throughput, or None where one is not computable."""
    rate = result.metrics["tokens_per_s"].value
    if rate is None:
        return None
    if name == "concurrency":
        return float(result.workload.concurrency), rate
    found = result.metrics[name].statistics
    return None if found is None else (getattr(found, statistic), rate)
