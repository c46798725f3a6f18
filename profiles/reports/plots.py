"""The plots of a run."""

import itertools
from collections.abc import Sequence

import numpy as np

from nemotrt.charts.chart import BOTTOM, TOP, Chart
from nemotrt.profiles.reports.gpu_plots import gpu_plots
from nemotrt.profiles.runs.metrics.request_metrics import e2e_latency_ms, tpot_ms, ttft_ms
from nemotrt.profiles.runs.record.result import ProfileResult, RequestRecord

NUM_TIME_BINS = 100
NUM_HISTOGRAM_BINS = 40
MAX_DOTS = 4000
MAX_BARS = 96
BAR_PIXELS = 9


def timelines(result: ProfileResult) -> tuple[list[str], list[str]]:
    """Return two columns of figures over the time of the run, all with the same time axis.

    The first has the token rate, and under it what the GPU did meanwhile.
    """
    first = [throughput(result), *gpu_plots(result)]
    second = [itl_over_time(result), timeline(result), occupancy(result)]
    return [figure for figure in first if figure], [figure for figure in second if figure]


def histograms(result: ProfileResult) -> list[str]:
    """Return the latencies' histograms, as HTML figures."""
    measured = [r for r in result.requests if r.phase == "measured" and r.is_complete]
    if not measured:
        return []
    drawn = [
        histogram("Time to first token", "ms", [ttft_ms(r) for r in measured]),
        histogram("End-to-end latency", "ms", [e2e_latency_ms(r) for r in measured]),
    ]
    if all(len(r.arrivals_s) > 1 for r in measured):
        drawn.append(histogram("Time per output token", "ms", [tpot_ms(r) for r in measured]))
        gaps = [gap for r in measured for _, gap in _gaps(r)]
        drawn.append(histogram("Inter-token latency", "ms", gaps))
    return drawn


def throughput(result: ProfileResult) -> str:
    """Return tokens a second over time; the shaded part is the steady window."""
    arrivals = [
        pair for r in result.requests for pair in zip(r.arrivals_s, r.arrival_tokens, strict=True)
    ]
    if not arrivals:
        return ""
    times, tokens = np.array(arrivals).T
    counts, edges = np.histogram(
        times, bins=NUM_TIME_BINS, range=(0, result.duration_s), weights=tokens
    )
    rates = counts / (edges[1] - edges[0])
    chart = Chart(
        "Output throughput over time",
        "seconds since the start",
        "tokens/s",
        (0, result.duration_s),
        (0, float(rates.max()) * 1.05),
    )
    _shade_window(chart, result)
    steps = [
        (float(edge), float(rate))
        for i, rate in enumerate(rates)
        for edge in (edges[i], edges[i + 1])
    ]
    chart.line(steps, "c1", "tokens/s")
    return chart.svg()


def itl_over_time(result: ProfileResult) -> str:
    """Return every gap between responses at the time of its end, with the running median."""
    gaps = [pair for request in result.requests for pair in _gaps(request)]
    if not gaps:
        return ""
    gaps.sort()
    times, values = np.array(gaps).T
    high = float(np.percentile(values, 99.5)) * 1.1
    chart = Chart(
        "Inter-token latency over time (up to the 99.5th percentile)",
        "seconds since the start",
        "ms",
        (0, result.duration_s),
        (0, high),
    )
    _shade_window(chart, result)
    shown = [pair for pair in gaps if pair[1] <= high]
    stride = max(len(shown) // MAX_DOTS, 1)
    chart.points(shown[::stride], "c1", "gap" if stride == 1 else f"every {stride}th gap")
    bins = np.array_split(np.arange(len(gaps)), min(NUM_TIME_BINS, len(gaps)))
    medians = [(float(times[b].mean()), float(np.median(values[b]))) for b in bins]
    chart.line(medians, "c2", "median")
    return chart.svg()


def timeline(result: ProfileResult) -> str:
    """Return one bar a request: in the queue, until the first token, decoding."""
    shown = result.requests[:MAX_BARS]
    if not shown:
        return ""
    title = "Requests" if len(shown) == len(result.requests) else f"The first {MAX_BARS} requests"
    chart = Chart(
        title,
        "seconds since the start",
        "request",
        (0, result.duration_s),
        (-len(shown), 0),
        height=TOP + BOTTOM + BAR_PIXELS * max(len(shown), 6),
        has_y_labels=False,
    )
    _shade_window(chart, result)
    has_queue = any(request.admitted_s is not None for request in shown)
    for row, request in enumerate(shown):
        end_s = request.arrivals_s[-1] if request.arrivals_s else request.ended_s
        if end_s is None:
            end_s = result.duration_s
        first_s = request.arrivals_s[0] if request.arrivals_s else end_s
        admitted_s = request.due_s if request.admitted_s is None else request.admitted_s
        y = (-row - 0.85, -row - 0.15)
        chart.bar((request.due_s, admitted_s), y, "f3")
        chart.bar((admitted_s, first_s), y, "f2")
        chart.bar((first_s, end_s), y, "f1" if request.phase == "measured" else "f4")
    if has_queue:
        chart.legend("f3", "queue")
    chart.legend("f2", "prefill" if has_queue else "until the first token")
    chart.legend("f1", "decode, measured")
    chart.legend("f4", "decode, warm-up or cool-down")
    return chart.svg()


def occupancy(result: ProfileResult) -> str:
    """Return how many requests run and wait in each engine step."""
    if not result.steps:
        return ""
    high = max(step.num_running + step.num_waiting for step in result.steps)
    chart = Chart(
        "Requests in the engine, step by step",
        "seconds since the start",
        "requests",
        (0, result.duration_s),
        (0, high * 1.1 or 1),
    )
    _shade_window(chart, result)
    stride = max(len(result.steps) // 2000, 1)
    steps = result.steps[::stride]
    chart.line([(s.end_s, s.num_running) for s in steps], "c1", "running")
    chart.line([(s.end_s, s.num_waiting) for s in steps], "c3", "waiting")
    return chart.svg()


def histogram(title: str, unit: str, samples: Sequence[float]) -> str:
    """Return a histogram with the median and the 99th percentile marked."""
    low, high = min(samples), max(samples)
    if high - low < 1e-6 * abs(high):  # equal but for rounding: too narrow for bins
        low, high = low - 1e-3 * abs(high), high + 1e-3 * abs(high)
    num_bins = min(NUM_HISTOGRAM_BINS, max(len(samples), 5))
    counts, edges = np.histogram(samples, bins=num_bins, range=(low, high))
    chart = Chart(
        f"{title} ({len(samples)} samples)",
        unit,
        "samples",
        (float(edges[0]), float(edges[-1])),
        (0, float(counts.max()) * 1.05),
    )
    for i, count in enumerate(counts):
        if count:
            chart.bar((float(edges[i]), float(edges[i + 1])), (0, float(count)), "f1")
    chart.marker(float(np.percentile(samples, 50)), "c2", "median")
    chart.marker(float(np.percentile(samples, 99)), "c3", "99th percentile")
    return chart.svg()


def _gaps(request: RequestRecord) -> list[tuple[float, float]]:
    """Return time and length in ms of each gap between responses."""
    return [
        (later, 1e3 * (later - earlier))
        for earlier, later in itertools.pairwise(request.arrivals_s)
    ]


def _shade_window(chart: Chart, result: ProfileResult) -> None:
    if result.window_s is not None:
        chart.band(*result.window_s, "window", "steady window")
