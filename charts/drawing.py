"""What a layout hands to a writer: marks at places, in units of which a figure is 480 wide."""

from dataclasses import dataclass

from nemotrt.charts.spec import Point

WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 28, 44  # around what lies within two axes


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
    width: float
    height: float
    legend: tuple[tuple[str, str], ...]
    marks: tuple[Mark, ...]
