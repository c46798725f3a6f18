"""One SVG chart: axes, bands, lines, points, bars; colours come from the page's style sheet."""

from collections.abc import Sequence
from html import escape

from nemotrt.charts.scale import label, scale

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 40
NUM_X_TICKS, NUM_Y_TICKS = 8, 5
Range = tuple[float, float]


class Chart:
    """Collects marks in data coordinates; `svg()` draws them, first marks at the back."""

    def __init__(
        self,
        title: str,
        x_label: str,
        y_label: str,
        x: Range,
        y: Range,
        *,
        height: int = HEIGHT,
        has_y_labels: bool = True,
    ) -> None:
        """Start a chart over the data ranges `x` and `y`."""
        self._title, self._x_label, self._y_label = title, x_label, y_label
        self._height, self._has_y_labels = height, has_y_labels
        self.x = scale(*x, LEFT, WIDTH - RIGHT)
        self.y = scale(*y, height - BOTTOM, TOP)
        self._bands: list[str] = []
        self._marks: list[str] = []
        self._legend: list[tuple[str, str]] = []

    def band(self, start: float, end: float, style: str, name: str) -> None:
        """Shade the x range [start, end] over the full height."""
        left, right = self.x(max(start, self.x.low)), self.x(min(end, self.x.high))
        self._bands.append(_rect(left, TOP, right - left, self._height - BOTTOM - TOP, style))
        self._legend.append((style, name))

    def line(self, points: Sequence[Range], style: str, name: str = "") -> None:
        """Join points."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self._marks.append(f'<polyline class="line {style}" points="{path}"/>')
        if name:
            self._legend.append((style, name))

    def points(self, points: Sequence[Range], style: str, name: str = "") -> None:
        """Draw small dots, as one path: thousands stay small."""
        path = "".join(f"M{self.x(x):.1f} {self.y(y):.1f}h0" for x, y in points)
        self._marks.append(f'<path class="dots {style}" d="{path}"/>')
        if name:
            self._legend.append((style, name))

    def bar(self, x: Range, y: Range, style: str) -> None:
        """Fill the rectangle between two data points."""
        left, right = self.x(x[0]), self.x(x[1])
        top, bottom = self.y(y[1]), self.y(y[0])
        self._marks.append(_rect(left, top, max(right - left, 0.4), max(bottom - top, 0.4), style))

    def marker(self, x: float, style: str, name: str) -> None:
        """Draw a vertical line at `x`."""
        pixel = self.x(x)
        self._marks.append(
            f'<line class="line {style}" x1="{pixel:.1f}" x2="{pixel:.1f}" y1="{TOP}" '
            f'y2="{self._height - BOTTOM}"/>'
        )
        self._legend.append((style, name))

    def legend(self, style: str, name: str) -> None:
        """Name a style that was used without a name."""
        self._legend.append((style, name))

    def svg(self) -> str:
        """Return the figure: caption, legend and SVG."""
        keys = "".join(
            f'<span class="key"><i class="{style}"></i>{escape(name)}</span>'
            for style, name in dict.fromkeys(self._legend)
        )
        return (
            f"<figure><figcaption>{escape(self._title)}{keys}</figcaption>"
            f'<svg viewBox="0 0 {WIDTH} {self._height}" role="img" '
            f'aria-label="{escape(self._title)}">'
            f"{''.join(self._bands)}{self._axes()}{''.join(self._marks)}</svg></figure>"
        )

    def _axes(self) -> str:
        """Return grid, tick labels and axis labels."""
        bottom = self._height - BOTTOM
        parts = []
        for value in self.x.ticks(NUM_X_TICKS):
            x = self.x(value)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
            parts.append(
                f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{label(value)}</text>'
            )
        for value in self.y.ticks(NUM_Y_TICKS) if self._has_y_labels else ():
            y = self.y(value)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label(value)}</text>'
            )
        middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + bottom) / 2
        parts.append(
            f'<text x="{middle_x}" y="{self._height - 6}" text-anchor="middle">'
            f"{escape(self._x_label)}</text>"
            f'<text transform="translate(12 {middle_y}) rotate(-90)" text-anchor="middle">'
            f"{escape(self._y_label)}</text>"
        )
        return "".join(parts)


def _rect(x: float, y: float, width: float, height: float, style: str) -> str:
    """Return a rectangle in pixels."""
    return (
        f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )
