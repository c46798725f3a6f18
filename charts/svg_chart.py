"""Draws a chart as one SVG element."""

from collections.abc import Iterator, Sequence
from html import escape

from nemotrt.charts.charts import (
    SERIES_COLOURS,
    Chart,
    HeatMap,
    LineChart,
    StackedBars,
    cell_text,
    part_colours,
)
from nemotrt.charts.svg_axis import Axis, axis, tick_text

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 52, 70
BAR_HEIGHT, BAR_LEFT = 34, 190
CELL_WIDTH, CELL_HEIGHT = 84, 30
CHARACTER_WIDTH = 6.4  # of 11-pixel sans serif, on average


def draw(chart: Chart) -> str:
    """Return the chart as an SVG element; hovering shows the figures."""
    if isinstance(chart, LineChart):
        return _svg(WIDTH, HEIGHT, chart.title, _lines(chart))
    if isinstance(chart, StackedBars):
        height = TOP + BOTTOM + len(chart.categories) * (BAR_HEIGHT + 12)
        return _svg(WIDTH, height, chart.title, _bars(chart, height))
    width = max(BAR_LEFT + len(chart.columns) * CELL_WIDTH + RIGHT, 420)
    height = TOP + 30 + len(chart.rows) * CELL_HEIGHT + 20
    return _svg(width, height, chart.title, _cells(chart))


def _svg(width: int, height: int, title: str, parts: Iterator[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "".join([head, background, _text(12, 22, title, size=15), *parts, "</svg>"])


def _text(
    x: float, y: float, text: str, anchor: str = "start", size: int = 12, fill: str = "#222"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{fill}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>'


def _rect(x: float, y: float, width: float, height: float, fill: str, title: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" '
        f'fill="{fill}"><title>{escape(title)}</title></rect>'
    )


def _lines(chart: LineChart) -> Iterator[str]:
    points = [point for series in chart.series for point in series.points]
    across = axis([x for x, _ in points], LEFT, WIDTH - RIGHT, chart.is_x_log)
    ends = [end for series in chart.series for pair in series.band for end in pair]
    up = axis([*(y for _, y in points), *ends], HEIGHT - BOTTOM, TOP, chart.is_y_log)
    yield from _grid(across, up, chart)
    for number, series in enumerate(chart.series):
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        pixels = [(across.pixel(x), up.pixel(y)) for x, y in series.points]
        if series.band:
            yield _band(
                [x for x, _ in pixels], [tuple(map(up.pixel, b)) for b in series.band], colour
            )
        if series.is_line:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for index, ((x, y), (value_x, value_y)) in enumerate(
            zip(pixels, series.points, strict=True)
        ):
            label = (series.labels[index] if series.labels else "") or series.name
            hover = f"{label}: {tick_text(value_x)}, {value_y:.4g}"
            if series.band:
                hover += " ({:.4g} to {:.4g})".format(*series.band[index])
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">'
            yield f"<title>{escape(hover)}</title></circle>"
            if series.labels:
                yield _text(x + 8, y + 4, series.labels[index].split("\n")[0], size=10)
    names = [series.name for series in chart.series]
    yield from _legend(names, SERIES_COLOURS, HEIGHT - 16)


def _band(xs: Sequence[float], ends: Sequence[Sequence[float]], colour: str) -> str:
    """Return the area between the low and the high ends."""
    low = [(x, pair[0]) for x, pair in zip(xs, ends, strict=True)]
    high = [(x, pair[1]) for x, pair in zip(xs, ends, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*low, *reversed(high)])
    return f'<polygon points="{path}" fill="{colour}" fill-opacity="0.15"/>'


def _grid(across: Axis, up: Axis, chart: LineChart) -> Iterator[str]:
    for value in across.ticks():
        x = across.pixel(value)
        yield _line(x, TOP, x, HEIGHT - BOTTOM, "#ddd")
        yield _text(x, HEIGHT - BOTTOM + 16, tick_text(value), "middle")
    for value in up.ticks():
        y = up.pixel(value)
        yield _line(LEFT, y, WIDTH - RIGHT, y, "#ddd")
        yield _text(LEFT - 6, y + 4, tick_text(value), "end")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 34, chart.x_label, "middle")
    yield _text(LEFT, TOP - 6, chart.y_label, size=11)


def _legend(names: Sequence[str], colours: Sequence[str], y: float) -> Iterator[str]:
    """Yield a swatch and a name for each series, side by side."""
    x = float(LEFT) / 2
    for number, name in enumerate(names):
        yield _rect(x, y - 9, 10, 10, colours[number % len(colours)], name)
        yield _text(x + 14, y, name, size=11)
        x += 30 + len(name) * CHARACTER_WIDTH


def _bars(chart: StackedBars, height: int) -> Iterator[str]:
    sums = [sum(values[i] for _, values in chart.parts) for i in range(len(chart.categories))]
    across = axis(sums, BAR_LEFT, WIDTH - RIGHT, is_log=False)
    colours = part_colours(chart)
    bottom = height - BOTTOM
    for value in across.ticks():
        yield _line(across.pixel(value), TOP, across.pixel(value), bottom, "#ddd")
        yield _text(across.pixel(value), bottom + 16, tick_text(value), "middle")
    yield _text((BAR_LEFT + WIDTH - RIGHT) / 2, bottom + 34, chart.x_label, "middle")
    for row, category in enumerate(chart.categories):
        y = TOP + 6 + row * (BAR_HEIGHT + 12)
        yield _text(BAR_LEFT - 8, y + BAR_HEIGHT / 2 + 4, category, "end")
        at = 0.0
        for number, (name, values) in enumerate(chart.parts):
            start, at = at, at + values[row]
            width = across.pixel(at) - across.pixel(start)
            hover = f"{category}, {name}: {values[row]:.2f}"
            yield _rect(across.pixel(start), y, width, BAR_HEIGHT, colours[number], hover)
    yield from _legend([name for name, _ in chart.parts], colours, height - 16)


def _cells(chart: HeatMap) -> Iterator[str]:
    seen = [value for row in chart.values for value in row if value is not None]
    low, high = (min(seen), max(seen)) if seen else (0.0, 1.0)
    for column, name in enumerate(chart.columns):
        yield _text(BAR_LEFT + (column + 0.5) * CELL_WIDTH, TOP + 16, name, "middle", 11)
    for row, name in enumerate(chart.rows):
        y = TOP + 26 + row * CELL_HEIGHT
        yield _text(BAR_LEFT - 8, y + 20, name, "end", 11)
        for column, value in enumerate(chart.values[row]):
            x = BAR_LEFT + column * CELL_WIDTH
            share = 0.0 if value is None or high == low else (value - low) / (high - low)
            fill = "#eee" if value is None else _shade(share)
            text = cell_text(value)
            hover = f"{name}, {chart.columns[column]}: {text}"
            yield _rect(x, y, CELL_WIDTH - 2, CELL_HEIGHT - 2, fill, hover)
            ink = "#fff" if share > 0.55 else "#222"
            yield _text(x + CELL_WIDTH / 2 - 1, y + 19, text, "middle", 11, ink)


def _shade(share: float) -> str:
    """Return a blue, from pale (0) to deep (1)."""
    red, green, blue = (round(a + share * (b - a)) for a, b in ((225, 0), (238, 82), (250, 145)))
    return f"#{red:02x}{green:02x}{blue:02x}"
