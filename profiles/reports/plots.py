"""The plots of a run."""

import itertools
from collections.abc import Sequence

import numpy as np

from nemotrt.charts.spec import Chart, Histogram, Lines, Series, Span, Timeline
from nemotrt.profiles.reports.gpu_plots import gpu_plots, steady_window
from nemotrt.profiles.runs.metrics.request_metrics import e2e_latency_ms, tpot_ms, ttft_ms
from nemotrt.profiles.runs.record.result import ProfileResult, RequestRecord

NUM_TIME_BINS = 100
NUM_HISTOGRAM_BINS = 40
MAX_DOTS = 4000
MAX_BARS = 96
SECONDS = "seconds since the start"


def timelines(result: ProfileResult) -> tuple[list[Chart], list[Chart]]:
    """Return two columns of figures over the time of the run, all with the same time axis.

    The first has the token rate, and under it what the GPU did meanwhile; without a GPU the columns
    share the figures evenly.
    """
    gpu = gpu_plots(result)
    first: list[Chart | None] = [throughput(result), *gpu]
    second: list[Chart | None] = [itl_over_time(result), timeline(result), occupancy(result)]
    if not gpu:
        first.append(second.pop(1))
    return [chart for chart in first if chart], [chart for chart in second if chart]


def histograms(result: ProfileResult) -> list[Histogram]:
    """Return the latencies' histograms."""
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


def throughput(result: ProfileResult) -> Lines | None:
    """Return tokens per second over time; the shaded part is the steady window."""
    arrivals = [
        pair for r in result.requests for pair in zip(r.arrivals_s, r.arrival_tokens, strict=True)
    ]
    if not arrivals:
        return None
    times, tokens = np.array(arrivals).T
    counts, edges = np.histogram(
        times, bins=NUM_TIME_BINS, range=(0, result.duration_s), weights=tokens
    )
    rates = counts / (edges[1] - edges[0])
    steps = tuple(
        (float(edge), float(rate))
        for i, rate in enumerate(rates)
        for edge in (edges[i], edges[i + 1])
    )
    return _over_time(result, "Output throughput over time", "tokens/s", Series("rate", steps))


def itl_over_time(result: ProfileResult) -> Lines | None:
    """Return every gap between responses at the time of its end, with the running median."""
    gaps = [pair for request in result.requests for pair in _gaps(request)]
    if not gaps:
        return None
    gaps.sort()
    times, values = np.array(gaps).T
    high = float(np.percentile(values, 99.5)) * 1.1
    shown = [pair for pair in gaps if pair[1] <= high]
    stride = max(len(shown) // MAX_DOTS, 1)
    name = "gap" if stride == 1 else f"every {stride}th gap"
    dots = Series(name, tuple(shown[::stride]), is_line=False)
    bins = np.array_split(np.arange(len(gaps)), min(NUM_TIME_BINS, len(gaps)))
    medians = tuple((float(times[b].mean()), float(np.median(values[b]))) for b in bins)
    title = "Inter-token latency over time (up to the 99.5th percentile)"
    return _over_time(result, title, "ms", dots, Series("median", medians))


def timeline(result: ProfileResult) -> Timeline | None:
    """Return one bar a request: in the queue, until the first token, decoding."""
    shown = result.requests[:MAX_BARS]
    if not shown:
        return None
    title = "Requests" if len(shown) == len(result.requests) else f"The first {MAX_BARS} requests"
    has_queue = any(request.admitted_s is not None for request in shown)
    first = "prefill" if has_queue else "until the first token"
    parts = ("decode, measured", first, "queue", "decode, warm-up or cool-down")
    rows = []
    for request in shown:
        end_s = request.arrivals_s[-1] if request.arrivals_s else request.ended_s
        if end_s is None:
            end_s = result.duration_s
        first_s = request.arrivals_s[0] if request.arrivals_s else end_s
        admitted_s = request.due_s if request.admitted_s is None else request.admitted_s
        decode = parts[0] if request.phase == "measured" else parts[3]
        spans = [Span(admitted_s, first_s, first), Span(first_s, end_s, decode)]
        queue = [Span(request.due_s, admitted_s, "queue")] if has_queue else []
        rows.append((*queue, *spans))
    return Timeline(
        title,
        SECONDS,
        "request",
        tuple(rows),
        tuple(part for part in parts if has_queue or part != "queue"),
        (0, result.duration_s),
        quiet=parts[3:],
        shaded=steady_window(result),
    )


def occupancy(result: ProfileResult) -> Lines | None:
    """Return how many requests run and wait in each engine step."""
    if not result.steps:
        return None
    stride = max(len(result.steps) // 2000, 1)
    steps = result.steps[::stride]
    running = Series("running", tuple((s.end_s, float(s.num_running)) for s in steps))
    waiting = Series("waiting", tuple((s.end_s, float(s.num_waiting)) for s in steps))
    title = "Requests in the engine, step by step"
    return _over_time(result, title, "requests", running, waiting)


def histogram(title: str, unit: str, samples: Sequence[float]) -> Histogram:
    """Return a histogram with the median and the 99th percentile marked."""
    low, high = min(samples), max(samples)
    if high - low < 1e-6 * abs(high):  # equal but for rounding: too narrow for bins
        low, high = low - 1e-3 * abs(high), high + 1e-3 * abs(high)
    num_bins = min(NUM_HISTOGRAM_BINS, max(len(samples), 5))
    counts, edges = np.histogram(samples, bins=num_bins, range=(low, high))
    median, worst = (float(value) for value in np.percentile(samples, (50, 99)))
    return Histogram(
        f"{title} ({len(samples)} samples)",
        unit,
        tuple(map(float, edges)),
        tuple(map(int, counts)),
        (("median", median), ("99th percentile", worst)),
    )


def _gaps(request: RequestRecord) -> list[tuple[float, float]]:
    """Return time and length in ms of each gap between responses."""
    return [
        (later, 1e3 * (later - earlier))
        for earlier, later in itertools.pairwise(request.arrivals_s)
    ]


def _over_time(result: ProfileResult, title: str, unit: str, *series: Series) -> Lines:
    """Return lines over the time of the run."""
    time_s, window = (0, result.duration_s), steady_window(result)
    return Lines(title, SECONDS, unit, series, x_range=time_s, shaded=window)
