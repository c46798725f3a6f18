"""Charts as data: what to draw, without saying how."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """A named line, or only its points.

    A label belongs to each point if given: its first line is drawn, all of it shows on hovering.
    A band is the low and the high value at each point.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    is_line: bool = True
    labels: tuple[str, ...] = ()
    band: tuple[tuple[float, float], ...] = ()


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
    """One bar a category, one segment a part; segments in `quiet` are of no interest."""

    title: str
    x_label: str
    categories: tuple[str, ...]
    parts: tuple[tuple[str, tuple[float, ...]], ...]
    quiet: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A value for each row and column; None where there is none."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


# Okabe and Ito's palette: distinct for colour-blind readers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
QUIET_COLOURS = ("#e8e8e8", "#bdbdbd")
SERIES_COLOURS = (COLOURS[0], COLOURS[5], *COLOURS[2:5])


def part_colours(chart: StackedBars) -> list[str]:
    """Return a colour for each part; quiet ones are grey."""
    loud, quiet = iter(COLOURS), iter(QUIET_COLOURS)
    return [next(quiet if name in chart.quiet else loud) for name, _ in chart.parts]


def cell_text(value: float | None) -> str:
    """Return a number for a cell: four figures, thousands apart, a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


Chart = LineChart | StackedBars | HeatMap
