"""Writes charts to a file: one self-contained HTML page, or a PNG through matplotlib."""

import io
from collections.abc import Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.planning.charts import Chart, HeatMap, LineChart, StackedBars
from nemotrt.profiles.planning.limits import check_writable, write_text
from nemotrt.profiles.planning.svg_chart import COLOURS, draw

STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:1340px;color:#222}"
    "svg{margin:.5em;border:1px solid #ddd}"
)


def check_plot_path(path: Path, is_overwrite: bool) -> None:
    """Raise ConfigError unless `path` is an .html or .png file that may be written."""
    if path.suffix not in (".html", ".png"):
        raise ConfigError(f"{path}: a plot is an .html or a .png file.")
    check_writable(path, is_overwrite)


def write_plot(
    path: Path, charts: Sequence[Chart], title: str, text: str, is_overwrite: bool = False
) -> None:
    """Write the charts to `path`; the suffix decides the format.

    Raises:
        ConfigError: another suffix, or the file exists.
        EnvironmentUnfitError: a PNG without matplotlib.
    """
    check_plot_path(path, is_overwrite)
    if path.suffix == ".html":
        write_text(path, page(charts, title, text), is_overwrite)
    else:
        path.write_bytes(png(charts, title))


def page(charts: Sequence[Chart], title: str, text: str) -> str:
    """Return one HTML page that needs no other file."""
    drawn = "\n".join(draw(chart) for chart in charts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(text)}</p>\n"
        f"{drawn}\n</body></html>\n"
    )


def png(charts: Sequence[Chart], title: str) -> bytes:
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
    figure: Any = figures.Figure(figsize=(8, 5 * len(charts)), layout="constrained")
    agg.FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(len(charts), 1, squeeze=False)[:, 0]
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


def _panel_lines(panel: Any, chart: LineChart) -> None:
    for number, series in enumerate(chart.series):
        xs, ys = zip(*series.points, strict=True)
        line = "-" if series.is_line else "None"
        panel.plot(xs, ys, linestyle=line, marker="o", color=COLOURS[number % 8], label=series.name)
        for label, x, y in zip(series.labels, xs, ys, strict=False):
            panel.annotate(label.split("\n")[0], (x, y))
    panel.set_xlabel(chart.x_label)
    panel.set_ylabel(chart.y_label)
    panel.set_xscale("log" if chart.is_x_log else "linear")
    panel.set_yscale("log" if chart.is_y_log else "linear")
    panel.legend()


def _panel_bars(panel: Any, chart: StackedBars) -> None:
    at = [0.0] * len(chart.categories)
    for number, (name, values) in enumerate(chart.parts):
        panel.barh(chart.categories, values, left=at, color=COLOURS[number % 8], label=name)
        at = [start + value for start, value in zip(at, values, strict=True)]
    panel.set_xlabel(chart.x_label)
    panel.legend()


def _panel_cells(panel: Any, chart: HeatMap) -> None:
    nan = float("nan")
    panel.imshow([[nan if v is None else v for v in row] for row in chart.values], cmap="Blues")
    panel.set_xticks(range(len(chart.columns)), chart.columns)
    panel.set_yticks(range(len(chart.rows)), chart.rows)
    for row, values in enumerate(chart.values):
        for column, value in enumerate(values):
            text = "-" if value is None else f"{value:.4g}"
            panel.text(column, row, text, ha="center", va="center")
