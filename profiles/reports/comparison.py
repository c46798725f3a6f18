"""One page of several runs: throughput against latency, and a table."""

from collections.abc import Sequence
from pathlib import Path

from nemotrt.charts.chart import Chart
from nemotrt.charts.scale import label
from nemotrt.files.writing import write_file
from nemotrt.profiles.reports.environment import environment
from nemotrt.profiles.runs.record.result import ProfileResult, Status

STYLES = ("c1", "c2", "c3", "c4")
COLUMNS = (
    ("tokens_per_s", "p50"),
    ("tokens_per_s_per_user", "mean"),
    ("requests_per_s", "p50"),
    ("ttft_ms", "p50"),
    ("ttft_ms", "p99"),
    ("tpot_ms", "p50"),
    ("tpot_ms", "p99"),
    ("e2e_latency_ms", "p50"),
)
Series = dict[str, list[ProfileResult]]


def write_comparison(results: Sequence[ProfileResult], path: Path, *, verdict: str = "") -> None:
    """Write the page whole or not at all; `verdict` is its first sentence."""
    write_file(path, render_comparison(results, verdict))


def render_comparison(results: Sequence[ProfileResult], verdict: str = "") -> str:
    """Return the page."""
    complete = [result for result in results if result.status is Status.COMPLETE]
    series = _by_target(complete)
    figures = [
        _curve(series, "Throughput against latency", "tpot_ms", "p50"),
        _curve(series, "Throughput against time to first token", "ttft_ms", "p99"),
        _curve(series, "Throughput against concurrency", "concurrency", ""),
    ]
    return (
        environment()
        .get_template("comparison.html.jinja")
        .render(
            results=results,
            plots=[figure for figure in figures if figure],
            columns=COLUMNS,
            cell=_cell,
            verdict=verdict or _verdict(complete, len(results)),
        )
    )


def _verdict(complete: Sequence[ProfileResult], num_runs: int) -> str:
    """Return the page's first sentence."""
    rated = [result for result in complete if result.metrics["tokens_per_s"].value is not None]
    if not rated:
        return f"None of {num_runs} runs is complete."
    best = max(rated, key=lambda result: result.metric("tokens_per_s"))
    return (
        f"{label(best.metric('tokens_per_s'))} tokens/s at best, with "
        f"{best.workload.concurrency} at a time; {len(complete)} of {num_runs} runs are complete."
    )


def _by_target(results: Sequence[ProfileResult]) -> Series:
    """Return the runs of each target and lengths, in order of concurrency."""
    series: Series = {}
    for result in sorted(results, key=lambda result: result.workload.concurrency):
        load = result.workload
        model = result.target.get("model", result.target["address"])
        series.setdefault(f"{model}, {load.isl} in, {load.osl} out", []).append(result)
    return series


def _curve(series: Series, title: str, name: str, statistic: str) -> str:
    """Return a curve a target: throughput over one latency, a point a run."""
    curves = {
        key: [point for result in runs if (point := _point(result, name, statistic))]
        for key, runs in series.items()
    }
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    x_label = name if not statistic else f"{name}, {statistic}"
    x_high, y_high = (1.08 * max(values) for values in zip(*points, strict=True))
    chart = Chart(title, x_label, "tokens/s", (0, x_high), (0, y_high))
    for style, (key, curve) in zip(STYLES * len(curves), curves.items(), strict=False):
        chart.line(curve, style, key)
        chart.points(curve, f"{style} big")
    return chart.svg()


def _point(result: ProfileResult, name: str, statistic: str) -> tuple[float, float] | None:
    """Return latency and throughput, or None where one is not computable."""
    rate = result.metrics["tokens_per_s"].value
    if rate is None:
        return None
    if name == "concurrency":
        return float(result.workload.concurrency), rate
    found = result.metrics[name].statistics
    return None if found is None else (getattr(found, statistic), rate)


def _cell(result: ProfileResult, name: str, statistic: str) -> str:
    """Return a table cell."""
    metric = result.metrics[name]
    if metric.value is not None:
        return label(metric.value)
    return "-" if metric.statistics is None else label(getattr(metric.statistics, statistic))
