"""Plots of awkward data."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.charts.svg import figure
from nemotrt.profiles.reports.plots import histogram

FINITE = st.floats(0, 1e6)


@pytest.mark.parametrize("samples", [[5.0], [0.0, 0.0], [80.0, 80.0 + 1e-14, 80.0 - 1e-14]])
def test_a_histogram_of_equal_samples_has_one_bar(samples):
    assert figure(histogram("x", "ms", samples)).count('<rect class="c1"') == 1


@given(st.lists(FINITE, min_size=1, max_size=50))
def test_a_histogram_stays_on_its_canvas(samples):
    svg = figure(histogram("x", "ms", samples))
    for x, width in re.findall(r'<rect class="c1" x="([^"]+)" y="[^"]+" width="([^"]+)"', svg):
        assert float(x) >= -1
        assert float(x) + float(width) <= 721
