"""The GPU's power, clock and utilization over the time of a run."""

from collections.abc import Callable

from nemotrt.charts.spec import Lines, Series, Span
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuSample, GpuTrace
from nemotrt.profiles.runs.record.result import ProfileResult

Figure = Callable[[GpuSample], float | None]
LINES: tuple[tuple[str, str, tuple[tuple[str, Figure], ...]], ...] = (
    ("power", "W", (("power", lambda s: s.power_w),)),
    ("SM clock", "MHz", (("SM clock", lambda s: s.sm_clock_mhz),)),
    ("memory clock", "MHz", (("memory clock", lambda s: s.memory_clock_mhz),)),
    (
        "utilization",
        "%",
        (
            ("SM", lambda s: s.sm_utilization_percent),
            ("memory", lambda s: s.memory_utilization_percent),
            ("temperature, C", lambda s: s.temperature_c),
        ),
    ),
    ("memory used", "GiB", (("used", lambda s: _gib(s.memory_used_bytes)),)),
)


def gpu_plots(result: ProfileResult) -> list[Lines]:
    """Return the charts of every GPU, on the time axis of the token rate."""
    return [
        chart
        for gpu in result.gpus
        for name, unit, lines in LINES
        if (chart := _plot(result, gpu, name, unit, lines))
    ]


def steady_window(result: ProfileResult) -> Span | None:
    """Return the part of a run's time that the metrics are of."""
    return None if result.window_s is None else Span(*result.window_s, "steady window")


def _plot(
    result: ProfileResult,
    gpu: GpuTrace,
    name: str,
    unit: str,
    lines: tuple[tuple[str, Figure], ...],
) -> Lines | None:
    """Return one chart, None where the GPU has none of its figures."""
    samples = [s for s in gpu.samples if 0 <= s.at_s <= result.duration_s]
    curves = [
        Series(key, tuple((s.at_s, float(v)) for s in samples if (v := figure(s)) is not None))
        for key, figure in lines
    ]
    drawn = tuple(curve for curve in curves if curve.points)
    # a clock that does not move is told in the table of the GPU
    if not drawn or (name == "memory clock" and len({v for _, v in drawn[0].points}) == 1):
        return None
    return Lines(
        f"GPU {gpu.facts.index} {name}",
        "seconds since the start",
        unit,
        drawn,
        x_range=(0, result.duration_s),
        shaded=steady_window(result),
    )


def _gib(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else num_bytes / 2**30
