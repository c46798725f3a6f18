"""Writes a chart as a figure of a page: its name, its keys, and an SVG that needs no script."""

from html import escape

from nemotrt.charts.layout import lay_out
from nemotrt.charts.spec import Chart, Dots, Line, Mark, Point, Rect, Text

AREA_OPACITY = 0.15


def figure(chart: Chart) -> str:
    """Return the chart; hovering a mark shows its values, the theme of the page colours it."""
    drawing = lay_out(chart)
    keys = "".join(
        f'<span class="key"><i class="{role}"></i>{escape(name)}</span>'
        for role, name in drawing.legend
    )
    return (
        f"<figure><figcaption>{escape(drawing.title)}{keys}</figcaption>"
        f'<svg viewBox="0 0 {drawing.width:g} {drawing.height:g}" role="img">'
        f"<title>{escape(drawing.title)}</title><desc>{escape(drawing.description)}</desc>"
        f"{''.join(map(_mark, drawing.marks))}</svg></figure>"
    )


def _mark(mark: Mark) -> str:
    match mark:
        case Text():
            return (
                f'<text class="{mark.role}" x="{mark.x:.1f}" y="{mark.y:.1f}" '
                f'text-anchor="{mark.anchor}">{escape(mark.text)}</text>'
            )
        case Rect():
            size = f'width="{mark.width:.1f}" height="{mark.height:.1f}"'
            opacity = "" if mark.opacity == 1 else f' fill-opacity="{mark.opacity:.2f}"'
            where = f'x="{mark.x:.1f}" y="{mark.y:.1f}" {size}{opacity}'
            return _element("rect", mark.role or "strip", where, mark.hover)
        case Line(is_area=True):
            where = f'points="{_points(mark.points)}" fill-opacity="{AREA_OPACITY}"'
            return _element("polygon", mark.role, where, mark.hover)
        case Line():
            where = f'points="{_points(mark.points)}" stroke-width="{mark.width:g}"'
            return _element("polyline", mark.role, where, mark.hover)
        case Dots(points=((x, y),)):
            where = f'cx="{x:.1f}" cy="{y:.1f}" r="{mark.radius:g}"'
            return _element("circle", mark.role, where, mark.hover)
        case Dots():
            path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in mark.points)
            where = f'd="{path}" stroke-width="{2 * mark.radius:g}" opacity="{mark.opacity:g}"'
            return _element("path", mark.role, where, mark.hover)


def _element(name: str, role: str, where: str, hover: str) -> str:
    start = f'<{name} class="{role}" {where}'
    return f"{start}><title>{escape(hover)}</title></{name}>" if hover else f"{start}/>"


def _points(points: tuple[Point, ...]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
