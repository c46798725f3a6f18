"""The GPU's power, clock and utilization over the time of a run."""

from collections.abc import Callable

from nemotrt.charts.chart import Chart
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuSample, GpuTrace
from nemotrt.profiles.runs.record.result import ProfileResult

Figure = Callable[[GpuSample], float | None]
LINES: tuple[tuple[str, str, tuple[tuple[str, str, Figure], ...]], ...] = (
    ("power", "W", (("c1", "power", lambda s: s.power_w),)),
    (
        "SM clock",
        "MHz",
        (("c1", "SM clock", lambda s: s.sm_clock_mhz),),
    ),
    (
        "memory clock",
        "MHz",
        (("c2", "memory clock", lambda s: s.memory_clock_mhz),),
    ),
    (
        "utilization",
        "%",
        (
            ("c1", "SM", lambda s: s.sm_utilization_percent),
            ("c2", "memory", lambda s: s.memory_utilization_percent),
            ("c3", "temperature, C", lambda s: s.temperature_c),
        ),
    ),
    (
        "memory used",
        "GiB",
        (
            (
                "c1",
                "used",
                lambda s: None if s.memory_used_bytes is None else s.memory_used_bytes / 2**30,
            ),
        ),
    ),
)


def gpu_plots(result: ProfileResult) -> list[str]:
    """Return the charts of every GPU, on the time axis of the token rate."""
    return [
        figure
        for gpu in result.gpus
        for name, unit, lines in LINES
        if (figure := _plot(result, gpu, name, unit, lines))
    ]


def _plot(
    result: ProfileResult,
    gpu: GpuTrace,
    name: str,
    unit: str,
    lines: tuple[tuple[str, str, Figure], ...],
) -> str:
    """Return one chart, "" where the GPU has none of its figures."""
    curves = [
        (style, key, [(s.at_s, v) for s in gpu.samples if (v := figure(s)) is not None])
        for style, key, figure in lines
    ]
    curves = [curve for curve in curves if curve[2]]
    if not curves or (name == "memory clock" and _is_constant(curves[0][2])):
        return ""
    high = max(value for _, _, points in curves for _, value in points)
    chart = Chart(
        f"GPU {gpu.facts.index} {name}",
        "seconds since the start",
        unit,
        (0, result.duration_s),
        (0, high * 1.05),
    )
    if result.window_s is not None:
        chart.band(*result.window_s, "window", "steady window")
    for style, key, points in curves:
        chart.line([p for p in points if 0 <= p[0] <= result.duration_s], style, key)
    return chart.svg()


def _is_constant(points: list[tuple[float, float]]) -> bool:
    """Return whether all values are one; such a clock is told in the table of the GPU."""
    return len({value for _, value in points}) == 1
