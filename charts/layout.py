"""Lays charts out: from data to marks, the same for every writer.

A phone shows a figure at two thirds of its size with letters a third larger, so the distances here
leave room for letters of 15 units, though most are 11.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from nemotrt.charts.axis import Axis, axis_of, grid, range_axis
from nemotrt.charts.cells import bars, heat_map
from nemotrt.charts.number import between, number
from nemotrt.charts.spec import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bars,
    Chart,
    Dots,
    Drawing,
    HeatMap,
    Histogram,
    Line,
    Lines,
    Mark,
    Point,
    Rect,
    Series,
    Span,
    Text,
    Timeline,
)
from nemotrt.charts.theme import SERIES, part_roles

ROW_HEIGHT, LEAST_ROWS = 6, 8
HEADROOM = 1.05
MAX_DOTS = 60  # of a series; of more, narrow strips over the chart tell the values
NUM_STRIPS = 60
LABEL_WIDTH, LABEL_HEIGHT = 7.5, 17.0  # of a character, and of a line
LABEL_PLACES = (
    *(("start", 7, 5), ("end", -7, 5), ("middle", 0, -8), ("middle", 0, 18)),
    *(("start", 7, 18), ("end", -7, -8)),
)


def lay_out(chart: Chart) -> Drawing:
    """Return the chart as marks."""
    match chart:
        case Lines():
            return _lines(chart)
        case Histogram():
            return _histogram(chart)
        case Timeline():
            return _timeline(chart)
        case Bars():
            return bars(chart)
        case HeatMap():
            return heat_map(chart)


def _lines(chart: Lines) -> Drawing:
    points = [point for series in chart.series for point in series.points]
    ends = [end for series in chart.series for pair in series.band for end in pair]
    if chart.x_range is None:
        x = axis_of([x for x, _ in points], LEFT, WIDTH - RIGHT, is_log=chart.is_x_log)
    else:
        x = range_axis(*chart.x_range, LEFT, WIDTH - RIGHT)
    ys = [*(y for _, y in points), *ends]
    y = axis_of(ys, HEIGHT - BOTTOM, TOP, is_log=chart.is_y_log, headroom=HEADROOM)
    roles = [SERIES[index % len(SERIES)] for index in range(len(chart.series))]
    legend: list[tuple[str, str]] = []
    marks = [*_shade(chart.shaded, x, y, legend), *grid(x, y, chart.x_label, chart.y_label)]
    labels: list[Text] = []
    drawn = [[(x(a), y(b)) for a, b in series.points] for series in chart.series if series.is_line]
    for role, series in zip(roles, chart.series, strict=True):
        marks += _series(chart, series, role, x, y, labels, drawn)
    dense = [series for series in chart.series if len(series.points) > MAX_DOTS]
    marks += [*labels, *_strips(chart, dense, x, y)]
    said = [
        f"{series.name}: {between(*(value for _, value in series.points))}"
        for series in chart.series
        if series.points
    ]
    legend += [(role, series.name) for role, series in zip(roles, chart.series, strict=True)]
    described = f"{chart.y_label} over {chart.x_label}, {between(x.low, x.high)}. "
    return Drawing(chart.title, described + "; ".join(said), legend, marks)


def _series(
    chart: Lines,
    series: Series,
    role: str,
    x: Axis,
    y: Axis,
    labels: list[Text],
    drawn: Sequence[Sequence[Point]],
) -> Iterator[Mark]:
    """Yield a series; what is written at its points is put into `labels`, where there is room.

    `drawn` are the lines of the chart, which a label stays off if it can.
    """
    at = tuple((x(a), y(b)) for a, b in series.points)
    if series.band:
        low, high = ([(x(a), y(pair[end])) for (a, _), pair in
                      zip(series.points, series.band, strict=True)] for end in (0, 1))  # fmt: skip
        yield Line((*low, *reversed(high)), role, is_area=True)
    if series.is_line:
        yield Line(at, role, width=1.8)
    if len(at) > MAX_DOTS:
        if not series.is_line:
            yield Dots(at, role, radius=1.1, opacity=0.45)
        return
    for index, (place, (value_x, value_y)) in enumerate(zip(at, series.points, strict=True)):
        label = series.labels[index] if series.labels else ""
        hover = f"{label or series.name}: {number(value_x, 3)}, {number(value_y)}"
        if series.band:
            hover += f" ({between(*series.band[index])})"
        yield Dots((place,), role, hover)
        if label:
            found = list(_free_labels(place, label.split("\n")[0], labels))
            labels += sorted(found, key=lambda text: any(_is_on(text, at) for at in drawn))[:1]


def _free_labels(place: Point, text: str, others: Sequence[Text]) -> Iterator[Text]:
    """Yield the text at each place beside a point where it is on no other text."""
    for anchor, right, down in LABEL_PLACES:
        found = Text(place[0] + right, place[1] + down, text, anchor)
        left, end = _extent(found)
        if left < LEFT or end > WIDTH or not TOP < found.y < HEIGHT - BOTTOM:
            continue
        if all(
            abs(found.y - other.y) >= LABEL_HEIGHT
            or left >= _extent(other)[1]
            or end <= _extent(other)[0]
            for other in others
        ):
            yield found


def _is_on(text: Text, line: Sequence[Point]) -> bool:
    """Whether a line goes through a text."""
    left, end = _extent(text)
    top, bottom = text.y - LABEL_HEIGHT * 0.7, text.y + LABEL_HEIGHT * 0.3
    for (x1, y1), (x2, y2) in pairwise(line):
        a, b = max(left, min(x1, x2)), min(end, max(x1, x2))
        if a <= b:
            ys = [y1, y2]
            if x1 != x2:
                ys = [y1 + (x - x1) * (y2 - y1) / (x2 - x1) for x in (a, b)]
            if min(ys) <= bottom and top <= max(ys):
                return True
    return False


def _extent(text: Text) -> Point:
    width = len(text.text) * LABEL_WIDTH
    left = text.x - {"start": 0.0, "middle": width / 2, "end": width}[text.anchor]
    return left, left + width


def _strips(chart: Lines, dense: Sequence[Series], x: Axis, y: Axis) -> Iterator[Mark]:
    """Yield strips over the whole height that tell the values in them on hovering."""
    width = (x.end - x.start) / NUM_STRIPS
    found: dict[int, dict[str, list[Point]]] = {}
    for series in dense:
        for point in series.points:
            strip = min(max(int((x(point[0]) - x.start) / width), 0), NUM_STRIPS - 1)
            found.setdefault(strip, {}).setdefault(series.name, []).append(point)
    for strip, values in sorted(found.items()):
        xs = [x for points in values.values() for x, _ in points]
        said = (f"{name} {between(*(y for _, y in points))}" for name, points in values.items())
        hover = f"{chart.x_label} {between(*xs)}: {', '.join(said)} ({chart.y_label})"
        yield Rect(x.start + strip * width, y.end, width, y.start - y.end, "", hover)


def _histogram(chart: Histogram) -> Drawing:
    x = range_axis(chart.edges[0], chart.edges[-1], LEFT, WIDTH - RIGHT)
    y = axis_of(chart.counts, HEIGHT - BOTTOM, TOP, headroom=HEADROOM)
    marks = [*grid(x, y, chart.x_label, "samples")]
    for low, high, count in zip(chart.edges, chart.edges[1:], chart.counts, strict=False):
        if count:
            hover = f"{between(low, high)} {chart.x_label}: {count} samples"
            width = max(x(high) - x(low), 0.4)
            marks.append(Rect(x(low), y(count), width, y.start - y(count), SERIES[0], hover))
    legend = []
    for role, (name, value) in zip(SERIES[1:], chart.marked, strict=False):
        at = x(value)
        hover = f"{name}: {number(value)} {chart.x_label}"
        marks.append(Line(((at, y.end), (at, y.start)), role, hover, width=1.8))
        legend.append((role, hover))
    return Drawing(chart.title, "; ".join(name for _, name in legend), legend, marks)


def _timeline(chart: Timeline) -> Drawing:
    height = TOP + BOTTOM + ROW_HEIGHT * max(len(chart.rows), LEAST_ROWS)
    x = range_axis(*chart.x_range, LEFT, WIDTH - RIGHT)
    y = range_axis(0, max(len(chart.rows), 1), TOP, height - BOTTOM)
    roles = dict(zip(chart.parts, part_roles(chart.parts, chart.quiet), strict=True))
    down = Axis(y.low, y.high, y.end, y.start)  # as an axis that points up
    legend: list[tuple[str, str]] = []
    marks = [*_shade(chart.shaded, x, down, legend), *grid(x, down, chart.x_label, "")]
    for row, spans in enumerate(chart.rows):
        for span in spans:
            hover = (
                f"{chart.row_label} {row + 1}, {span.name}: {between(span.start, span.end)} "
                f"({chart.x_label})"
            )
            at, width = x(span.start), max(x(span.end) - x(span.start), 0.4)
            tall = 0.7 * (y(1) - y(0))
            marks.append(Rect(at, y(row + 0.15), width, tall, roles[span.name], hover))
    legend += [(role, name) for name, role in roles.items()]
    described = f"{len(chart.rows)} rows, one for each {chart.row_label}, over {chart.x_label}."
    return Drawing(chart.title, described, legend, marks, height=height)


def _shade(span: Span | None, x: Axis, y: Axis, legend: list[tuple[str, str]]) -> Iterator[Mark]:
    """Yield what is shaded, if anything is, and name it in the legend."""
    if span is not None:
        left, right = x(max(span.start, x.low)), x(min(span.end, x.high))
        hover = f"{span.name}: {between(span.start, span.end)}"
        legend.append(("window", span.name))
        yield Rect(left, y.end, max(right - left, 0), y.start - y.end, "window", hover)
