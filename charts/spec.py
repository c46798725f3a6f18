"""Charts as data, without saying how they look; and the marks that a layout makes of them.

Marks lie in units of which a figure is 480 wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 28, 44  # around what lies within two axes

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class About:
    """What a page says beside its charts: of what, the main thing, assumptions, and notes."""

    title: str
    lead: str = ""
    assumptions: tuple[tuple[str, object], ...] = ()
    notes: tuple[str, ...] = ()
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """A named line, or only its points.

    A label belongs to each point if given: its first line is drawn, all of it shows on hovering.
    A band is the low and the high value at each point.
    """

    name: str
    points: tuple[Point, ...]
    is_line: bool = True
    labels: tuple[str, ...] = ()
    band: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A named part of an axis."""

    start: float
    end: float
    name: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines and points over two axes; `shaded` lies behind them."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    is_x_log: bool = False
    is_y_log: bool = False
    x_range: Point | None = None
    shaded: Span | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many samples lie between each two edges, and marked values."""

    title: str
    x_label: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    marked: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """One row of spans for each of what `row_label` names; `parts` are the spans' names."""

    title: str
    x_label: str
    row_label: str
    rows: tuple[tuple[Span, ...], ...]
    parts: tuple[str, ...]
    x_range: Point
    quiet: tuple[str, ...] = ()
    shaded: Span | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """One bar for each category, parts stacked in it; they lie, or stand where there are many.

    Parts in `quiet` are of no interest. A text stands behind a lying bar's name, and a mark on it.
    """

    title: str
    value_label: str
    categories: tuple[str, ...]
    parts: tuple[tuple[str, tuple[float, ...]], ...]
    quiet: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    marks: tuple[float, ...] = ()
    mark_name: str = ""
    is_upright: bool = False


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A value for each row and column; None where there is none."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


Chart = Lines | Histogram | Timeline | Bars | HeatMap


@dataclass(frozen=True, slots=True)
class Rect:
    """A filled rectangle; without a role it is seen only while it is hovered."""

    x: float
    y: float
    width: float
    height: float
    role: str
    hover: str = ""
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined by a line, or the area within them."""

    points: tuple[Point, ...]
    role: str
    hover: str = ""
    width: float = 0.6
    is_area: bool = False


@dataclass(frozen=True, slots=True)
class Dots:
    """Points; many of them are small and pale."""

    points: tuple[Point, ...]
    role: str
    hover: str = ""
    radius: float = 3.5
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    role: str = "soft"


Mark = Rect | Line | Dots | Text


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart that was laid out; the legend's entries are a role and a name."""

    title: str
    description: str
    legend: Sequence[tuple[str, str]]
    marks: Sequence[Mark]
    width: float = WIDTH
    height: float = HEIGHT
