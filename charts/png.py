"""Writes charts as a PNG: the same marks as the SVG's, drawn by matplotlib's Agg."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

from nemotrt.charts.layout import lay_out
from nemotrt.charts.spec import WIDTH, About, Chart, Dots, Drawing, Mark, Rect, Text
from nemotrt.charts.svg import AREA_OPACITY
from nemotrt.charts.theme import LIGHT
from nemotrt.needs import MATPLOTLIB

UNITS_PER_INCH, DOTS_PER_INCH, POINTS_PER_UNIT = 100, 200, 0.72
LETTERS, LINE_HEIGHT, CHARACTER, EDGE = 11, 16, 6.5, 8


def png(about: About, charts: Sequence[Chart]) -> bytes:
    """Return the charts below each other, under what they are of.

    Raises:
        EnvironmentUnfitError: matplotlib is not installed.
    """
    agg, figures = (
        MATPLOTLIB.load(f"matplotlib.{name}", "a PNG", end="; or choose an .html file.")
        for name in ("backends.backend_agg", "figure")
    )
    drawings = [lay_out(chart) for chart in charts]
    width = max([float(WIDTH), *(drawing.width for drawing in drawings)])
    said = [about.title, about.lead, *(f"{key}: {value}" for key, value in about.assumptions)]
    head = [line for part in (*said, *about.notes)
            for line in textwrap.wrap(part, int(width / CHARACTER))]  # fmt: skip
    marks: list[tuple[float, Mark]] = []
    top = _lines_down(marks, [[("fg", line)] for line in head], 0, has_keys=False)
    for drawing in drawings:
        top = _lines_down(marks, [[("fg", drawing.title)]], top + LINE_HEIGHT, has_keys=False)
        top = _lines_down(marks, _legend_lines(drawing, width), top, has_keys=True)
        marks += [(top, mark) for mark in drawing.marks]
        top += drawing.height
    size = (width / UNITS_PER_INCH, (top + EDGE) / UNITS_PER_INCH)
    canvas: Any = figures.Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor=LIGHT["bg"])
    agg.FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(top + EDGE, 0))
    axes.axis("off")
    for order, (down, mark) in enumerate(marks):
        _draw(axes, mark, down, order)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return buffer.getvalue()


def _lines_down(
    marks: list[tuple[float, Mark]], lines: list[list[tuple[str, str]]], top: float, has_keys: bool
) -> float:
    """Add lines of names to the marks, with the keys of their colours; return where they end."""
    for line in lines:
        x, top = float(EDGE), top + LINE_HEIGHT
        for role, name in line:
            if has_keys:
                marks.append((top, Rect(x, -8, 9, 9, role)))
                x += 13
            marks.append((top, Text(x, 0, name, role="soft" if has_keys else "fg")))
            x += len(name) * CHARACTER + 10
    return top


def _legend_lines(drawing: Drawing, width: float) -> list[list[tuple[str, str]]]:
    lines: list[list[tuple[str, str]]] = []
    room = 0.0
    for role, name in drawing.legend:
        needed = len(name) * CHARACTER + 23
        if needed > room:
            lines.append([])
            room = width - EDGE
        lines[-1].append((role, name))
        room -= needed
    return lines


def _draw(axes: Any, mark: Mark, down: float, order: int) -> None:
    """Draw one mark, so far down; what is seen only on hovering is left out."""
    colour = LIGHT.get(mark.role)
    if colour is None:
        return
    if isinstance(mark, Text):
        anchor = {"start": "left", "middle": "center", "end": "right"}[mark.anchor]
        size = LETTERS * POINTS_PER_UNIT
        axes.text(mark.x, down + mark.y, mark.text, ha=anchor, va="baseline", fontsize=size,
                  color=colour, zorder=order, parse_math=False)  # fmt: skip
    elif isinstance(mark, Rect):
        left, right = mark.x, mark.x + mark.width
        top, bottom = down + mark.y, down + mark.y + mark.height
        axes.fill((left, right, right, left), (top, top, bottom, bottom), color=colour,
                  zorder=order, alpha=mark.opacity, linewidth=0)  # fmt: skip
    else:
        xs, ys = [x for x, _ in mark.points], [down + y for _, y in mark.points]
        if isinstance(mark, Dots):
            size = 2 * mark.radius * POINTS_PER_UNIT
            axes.plot(xs, ys, "o", color=colour, zorder=order, alpha=mark.opacity, markersize=size,
                      markeredgewidth=0)  # fmt: skip
        elif mark.is_area:
            axes.fill(xs, ys, color=colour, zorder=order, alpha=AREA_OPACITY, linewidth=0)
        else:
            axes.plot(xs, ys, color=colour, zorder=order, linewidth=mark.width * POINTS_PER_UNIT)
