"""Numbers, ticks, and every kind of chart in both outputs."""

import importlib.util
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.charts.axis import Axis, axis_of
from nemotrt.charts.layout import lay_out
from nemotrt.charts.number import number
from nemotrt.charts.png import png
from nemotrt.charts.spec import (
    About,
    Bars,
    Chart,
    HeatMap,
    Histogram,
    Line,
    Lines,
    Series,
    Span,
    Text,
    Timeline,
)
from nemotrt.charts.svg import figure
from nemotrt.errors import EnvironmentUnfitError

NAME = "a <b> & $x$"
SIZES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
POINTS = tuple((float(x), x**2 + 1.0) for x in range(1, 200))
KINDS: dict[str, Chart] = {
    "lines": Lines(NAME, "x", "y", (Series(NAME, POINTS[:9], band=POINTS[:9], labels=(NAME,) * 9),),
                   is_x_log=True, is_y_log=True),
    "dense": Lines(NAME, "x", "y", (Series("a", POINTS), Series("b", POINTS, is_line=False)),
                   x_range=(0, 300), shaded=Span(5, 10, "window")),
    "no lines": Lines(NAME, "x", "y", ()),
    "histogram": Histogram(NAME, "ms", (0, 1, 2), (3, 0), (("median", 0.5),)),
    "timeline": Timeline(NAME, "s", "request", ((Span(0, 1, "a"), Span(1, 1, "b")),), ("a", "b"),
                         (0, 2), quiet=("b",), shaded=Span(0, 9, "window")),
    "bars": Bars(NAME, "GiB", (NAME, "b"), (("p", (1, 2)), ("q", (0, 3))), quiet=("q",),
                 texts=("x", "y" * 99), marks=(1, 4), mark_name="median"),
    "columns": Bars(NAME, "y", tuple(map(str, range(90))), (("p", (0.5,) * 90),), is_upright=True),
    "heat map": HeatMap(NAME, ("a", "b"), (NAME, "c" * 99), ((1, None), (2e5, 0.1))),
    "no cells": HeatMap(NAME, (), (), ()),
}  # fmt: skip


def value_of(text: str) -> float:
    return float(text[:-1]) * SIZES[text[-1]] if text[-1] in SIZES else float(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9999.96, "10k"), (999_999.9, "1M"), (0.1 + 0.2, "0.3"), (1200, "1200"),
     (15_021, "15.02k"), (0.05, "0.05"), (5e-5, "5e-5"), (1e20, "1e20"), (None, "-"),
     (-12_345, "-12.34k"), (math.nan, "nan")],
)  # fmt: skip
def test_numbers_by_hand(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_label_stays_off_the_lines() -> None:
    """Points on a rising line, where the first place right of each is on the line or on a text."""
    line = tuple((float(x), float(x)) for x in range(11))
    points = Series("ops", ((5.3, 4.9), (5.0, 4.3)), False, ("linears", "attention"))
    drawing = lay_out(Lines("t", "x", "y", (Series("roof", line), points)))
    [(x1, y1), *_, (x2, y2)] = next(
        mark.points for mark in drawing.marks if isinstance(mark, Line) and len(mark.points) == 11
    )
    labels = [
        m for m in drawing.marks if isinstance(m, Text) and m.text in ("attention", "linears")
    ]
    assert len(labels) == 2
    for label in labels:
        half = len(label.text) * 6 / 2  # of letters of 11 units
        middle = label.x + {"start": half, "middle": 0, "end": -half}[label.anchor]
        heights = [y1 + (x - x1) / (x2 - x1) * (y2 - y1) for x in (middle - half, middle + half)]
        assert max(heights) < label.y - 8 or min(heights) > label.y + 2, label


@given(st.floats(-1e300, 1e300))
def test_a_number_reads_back(value: float) -> None:
    text = number(value)
    assert value_of(text) == pytest.approx(value, rel=5.1e-4, abs=0)
    assert "+" not in text and "e0" not in text and len(text) <= 11


@given(st.floats(-1e290, 1e290), st.floats(1e-9, 1e9), st.integers(5, 9))
@settings(deadline=None)
def test_ticks_are_round_and_within(low: float, length: float, count: int) -> None:
    high = low + length * max(abs(low), 1e-200)
    ticks = Axis(low, high, 0, 1).ticks(count)
    assert 2 <= len(ticks) <= count + 1 and ticks == sorted(set(ticks))
    assert low <= ticks[0] and ticks[-1] <= high
    assert len({number(tick, 15) for tick in ticks}) == len(ticks)
    assert all(value_of(number(tick, 15)) == pytest.approx(tick, rel=1e-14) for tick in ticks)


@given(st.floats(1e-200, 1e200), st.floats(1.01, 1e80), st.integers(5, 9))
@settings(deadline=None)
def test_log_ticks_are_round_and_within(low: float, ratio: float, count: int) -> None:
    ticks = Axis(low, low * ratio, 0, 1, is_log=True).ticks(count)
    assert 2 <= len(ticks) <= max(count + 1, 9) and ticks == sorted(set(ticks))
    assert low <= ticks[0] and ticks[-1] <= low * ratio


def test_no_noise_in_ticks() -> None:
    assert Axis(0, 0.5, 0, 1).ticks(5) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_logarithmic_axis_refuses_zero() -> None:
    with pytest.raises(ValueError, match="not on a logarithmic axis"):
        axis_of([0.0, 1.0], 0, 1, is_log=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_well_formed(kind: str) -> None:
    root = ElementTree.fromstring(figure(KINDS[kind]))
    svg = root.find("svg")
    assert svg is not None and svg.findtext("title") == NAME and svg.findtext("desc")
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    for mark in svg:
        for key, most in (("x", width), ("y", height), ("cx", width), ("cy", height)):
            assert -1 <= float(mark.attrib.get(key, 0)) <= most + 1
        if mark.tag in ("rect", "circle"):
            assert mark.findtext("title"), "a mark tells its values"
    assert not re.search(r"nan|inf\b|1e\+", figure(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_png(kind: str) -> None:
    about = About(NAME, "lead", (("isl", 8),), ("a note",))
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(EnvironmentUnfitError, match=r"nemotrt\[plots\]"):
            png(about, [KINDS[kind]])
    else:
        content = png(about, [KINDS[kind]])
        assert content.startswith(b"\x89PNG") and len(content) > 2000
