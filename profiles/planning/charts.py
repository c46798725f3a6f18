"""Charts as data: what to draw, without saying how."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """A named line, or only its points.

    A label belongs to each point if given: its first line is drawn, all of it shows on hovering.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    is_line: bool = True
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LineChart:
    """Lines and points over two axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    is_x_log: bool = False
    is_y_log: bool = False


@dataclass(frozen=True, slots=True)
class StackedBars:
    """One bar a category, one segment a part; `limits` is a mark on each bar."""

    title: str
    x_label: str
    categories: tuple[str, ...]
    parts: tuple[tuple[str, tuple[float, ...]], ...]
    limits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A value for each row and column; None where there is none."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


Chart = LineChart | StackedBars | HeatMap
