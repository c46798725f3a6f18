"""Writes charts to a file: one self-contained HTML page, or a PNG through matplotlib."""

import io
import textwrap
from collections.abc import Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from nemotrt.charts.charts import (
    SERIES_COLOURS,
    Chart,
    HeatMap,
    LineChart,
    StackedBars,
    cell_text,
    part_colours,
)
from nemotrt.charts.svg_axis import tick_text
from nemotrt.charts.svg_chart import draw
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.files.writing import check_file, write_file

STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:1340px;color:#222}"
    "p{white-space:pre-line}"
    "svg{margin:.5em;border:1px solid #ddd;vertical-align:top}"
)


TITLE_WIDTH = 110  # characters of a PNG's heading
BAR_INCHES, CELL_INCHES, LINES_INCHES, AXES_INCHES = 0.5, 0.3, 4.0, 1.2


def check_plot_path(path: Path, is_overwrite: bool) -> None:
    """Raise ConfigError unless `path` is an .html or .png file that may be written."""
    if path.suffix not in (".html", ".png"):
        raise ConfigError(f"{path}: a plot is an .html or a .png file.")
    check_file(path, force=is_overwrite)


def write_plot(
    path: Path, charts: Sequence[Chart], title: str, text: str, is_overwrite: bool = False
) -> None:
    """Write the charts to `path`; the suffix decides the format.

    Raises:
        ConfigError: another suffix, or the file exists.
        EnvironmentUnfitError: a PNG without matplotlib.
    """
    check_plot_path(path, is_overwrite)
    drawn = page(charts, title, text) if path.suffix == ".html" else png(charts, title, text)
    write_file(path, drawn, force=is_overwrite)


def page(charts: Sequence[Chart], title: str, text: str) -> str:
    """Return one HTML page that needs no other file."""
    drawn = "\n".join(draw(chart) for chart in charts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(text)}</p>\n"
        f"{drawn}\n</body></html>\n"
    )


def png(charts: Sequence[Chart], title: str, text: str = "") -> bytes:
    """Return the charts below each other as a PNG.

    Raises:
        EnvironmentUnfitError: matplotlib is not installed.
    """
    try:
        agg = import_module("matplotlib.backends.backend_agg")
        figures = import_module("matplotlib.figure")
    except ImportError as error:
        raise EnvironmentUnfitError(
            'a PNG needs matplotlib: pip install "nemotrt[plots]"; or choose an .html file.'
        ) from error
    heights = [_height(chart) for chart in charts]
    figure: Any = figures.Figure(figsize=(9, sum(heights) + 1), layout="constrained")
    agg.FigureCanvasAgg(figure)
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, TITLE_WIDTH)]
    figure.suptitle("\n".join([title, *lines]), fontsize=10)
    panels = figure.subplots(len(charts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, chart in zip(panels, charts, strict=True):
        panel.set_title(chart.title)
        if isinstance(chart, LineChart):
            _panel_lines(panel, chart)
        elif isinstance(chart, StackedBars):
            _panel_bars(panel, chart)
        else:
            _panel_cells(panel, chart)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _height(chart: Chart) -> float:
    """Return the inches that a chart needs."""
    if isinstance(chart, LineChart):
        return LINES_INCHES
    if isinstance(chart, StackedBars):
        return AXES_INCHES + BAR_INCHES * len(chart.categories)
    return AXES_INCHES + CELL_INCHES * len(chart.rows)


def _panel_lines(panel: Any, chart: LineChart) -> None:
    for number, series in enumerate(chart.series):
        xs, ys = zip(*series.points, strict=True)
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        line = "-" if series.is_line else "None"
        panel.plot(xs, ys, linestyle=line, marker="o", color=colour, label=series.name)
        if series.band:
            low, high = zip(*series.band, strict=True)
            panel.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
        for label, x, y in zip(series.labels, xs, ys, strict=False):
            name = label.split("\n")[0]
            panel.annotate(name, (x, y), xytext=(8, -4), textcoords="offset points")
    panel.set_xlabel(chart.x_label)
    panel.set_ylabel(chart.y_label)
    for scale, axis, is_log in (
        (panel.set_xscale, panel.xaxis, chart.is_x_log),
        (panel.set_yscale, panel.yaxis, chart.is_y_log),
    ):
        if is_log:
            scale("log")
            axis.set_major_formatter(lambda value, _: tick_text(value))
            axis.set_minor_formatter(lambda value, _: "")
    if not chart.is_y_log:
        panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend()


def _panel_bars(panel: Any, chart: StackedBars) -> None:
    at = [0.0] * len(chart.categories)
    for colour, (name, values) in zip(part_colours(chart), chart.parts, strict=True):
        panel.barh(chart.categories, values, left=at, color=colour, label=name)
        at = [start + value for start, value in zip(at, values, strict=True)]
    panel.invert_yaxis()  # the first one on top
    panel.set_xlabel(chart.x_label)
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=len(chart.parts))


def _panel_cells(panel: Any, chart: HeatMap) -> None:
    nan = float("nan")
    seen = [v for row in chart.values for v in row if v is not None]
    top = max(seen, default=1.0)
    cells = [[nan if v is None else v for v in row] for row in chart.values]
    panel.imshow(cells, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    panel.set_xticks(range(len(chart.columns)), chart.columns)
    panel.set_yticks(range(len(chart.rows)), chart.rows)
    for row, values in enumerate(chart.values):
        for column, value in enumerate(values):
            ink = "white" if value is not None and value > 0.6 * top else "black"
            panel.text(column, row, cell_text(value), ha="center", va="center", color=ink)
