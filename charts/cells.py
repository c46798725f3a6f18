"""Lays out charts over names: bars, lying or upright, and heat maps."""

import math
from collections.abc import Iterator

from nemotrt.charts.axis import NUM_Y_TICKS, axis_of, upright_grid
from nemotrt.charts.number import EXACT, number
from nemotrt.charts.spec import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bars,
    Drawing,
    HeatMap,
    Line,
    Mark,
    Rect,
    Text,
)
from nemotrt.charts.theme import SERIES, part_roles

PITCH, BAR, NAME = 38, 13, 18  # of a lying bar, with its name above it
CELL_WIDTH, CELL_HEIGHT, CHARACTER, MOST_CHARACTERS = 56.0, 30, 8.0, 24
PALEST, DEEPEST = 0.06, 0.5  # of a cell's colour, so that its number can be read


def bars(chart: Bars) -> Drawing:
    """Return one bar for each category."""
    totals = [sum(values[row] for _, values in chart.parts) for row in range(len(chart.categories))]
    roles = part_roles([name for name, _ in chart.parts], chart.quiet)
    draw = _upright if chart.is_upright else _lying
    height = HEIGHT if chart.is_upright else len(chart.categories) * PITCH + BOTTOM + 6
    marks = tuple(draw(chart, totals, roles))
    pairs = zip(roles, chart.parts, strict=True)
    legend = [(role, name) for role, (name, values) in pairs if any(values)]
    if chart.marks:
        legend.append(("fg", chart.mark_name))
    sums = (f"{name} {number(sum)}" for name, sum in zip(chart.categories, totals, strict=True))
    described = f"{chart.value_label}: {'; '.join(sums)}"
    return Drawing(chart.title, described, legend, marks, height=height)


def _lying(chart: Bars, totals: list[float], roles: list[str]) -> Iterator[Mark]:
    x = axis_of([*totals, *chart.marks], 8, WIDTH - RIGHT)
    bottom = len(chart.categories) * PITCH + 4
    for value in x.ticks(NUM_Y_TICKS):
        yield Line(((x(value), 4), (x(value), bottom)), "rule")
        yield Text(max(x(value), 14), bottom + 18, number(value, EXACT), "middle")
    yield Text(WIDTH / 2, bottom + 36, chart.value_label, "middle")
    for row, category in enumerate(chart.categories):
        y = row * PITCH + NAME
        text = f"{category}: {chart.texts[row]}" if chart.texts else category
        yield Text(8, y - 4, _short(text, int(WIDTH / CHARACTER)), role="fg")
        for start, size, role, hover in _segments(chart, row, roles):
            yield Rect(x(start), y, x(start + size) - x(start), BAR, role, hover)
        if chart.marks:
            at, hover = x(chart.marks[row]), f"{category}, {chart.mark_name}: "
            hover += number(chart.marks[row])
            yield Line(((at, y - 1), (at, y + BAR + 1)), "fg", hover, width=1.8)


def _upright(chart: Bars, totals: list[float], roles: list[str]) -> Iterator[Mark]:
    y = axis_of(totals, HEIGHT - BOTTOM, TOP)
    yield from upright_grid(y, LEFT, WIDTH - RIGHT, chart.value_label)
    pitch = (WIDTH - LEFT - RIGHT) / max(len(totals), 1)
    widest = max([CHARACTER * (len(name) + 1) for name in chart.categories], default=CHARACTER)
    for row, category in enumerate(chart.categories):
        left = LEFT + row * pitch
        for start, size, role, hover in _segments(chart, row, roles):
            yield Rect(left, y(start + size), pitch * 0.8, y(start) - y(start + size), role, hover)
        if row % math.ceil(widest / pitch) == 0:
            yield Text(left + pitch * 0.4, y.start + 20, category, "middle")


def _segments(chart: Bars, row: int, roles: list[str]) -> Iterator[tuple[float, float, str, str]]:
    """Yield where each part of a bar starts, its size, colour and words."""
    at = 0.0
    for role, (name, values) in zip(roles, chart.parts, strict=True):
        if values[row]:
            yield at, values[row], role, f"{chart.categories[row]}, {name}: {number(values[row])}"
        at += values[row]


def heat_map(chart: HeatMap) -> Drawing:
    """Return a coloured cell for each value, with its number."""
    seen = [value for row in chart.values for value in row if value is not None]
    low, high = (min(seen), max(seen)) if seen else (0.0, 0.0)
    longest = max([0, *(len(name) for name in chart.rows)])
    left = 10 + CHARACTER * min(longest, MOST_CHARACTERS)
    cell = max((WIDTH - left - 6) / max(len(chart.columns), 1), CELL_WIDTH)
    cell = min(cell, 2 * CELL_WIDTH)
    marks: list[Mark] = [
        Text(left + (column + 0.5) * cell, 14, _short(name, int(cell / CHARACTER)), "middle")
        for column, name in enumerate(chart.columns)
    ]
    for row, name in enumerate(chart.rows):
        y = 22 + row * CELL_HEIGHT
        marks.append(Text(left - 6, y + 19, _short(name, MOST_CHARACTERS), "end"))
        for column, value in enumerate(chart.values[row]):
            x, text = left + column * cell, number(value, 3)
            hover = f"{name}, {chart.columns[column]}: {number(value)}"
            share = 1.0 if value is None or high == low else (value - low) / (high - low)
            role, opacity = SERIES[0], PALEST + (DEEPEST - PALEST) * share
            if value is None:
                role, opacity = "panel", 1.0
            marks.append(Rect(x, y, cell - 2, CELL_HEIGHT - 2, role, hover, opacity))
            marks.append(Text(x + cell / 2 - 1, y + 19, text, "middle", "fg"))
    width = max(left + len(chart.columns) * cell + 6, WIDTH)
    said = f"{len(chart.rows)} rows, {len(chart.columns)} columns, {number(low)} to {number(high)}"
    height = 24 + len(chart.rows) * CELL_HEIGHT
    return Drawing(chart.title, said, (), marks, width, height)


def _short(text: str, most: int) -> str:
    """Return the text, cut where it has more than so many characters."""
    return text if len(text) <= most else text[: max(most - 1, 0)] + "\N{HORIZONTAL ELLIPSIS}"
