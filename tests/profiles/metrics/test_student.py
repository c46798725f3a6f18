"""Student's t against published tables, closed forms, and the density integrated by a sum."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.profiles.runs.metrics.student import student_quantile

# Source: NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.2; two-sided 95 %.
TABLE = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    9: 2.262,
    19: 2.093,
    38: 2.024,
    100: 1.984,
}


@pytest.mark.parametrize("freedom", TABLE)
def test_the_published_table(freedom: int) -> None:
    assert round(student_quantile(0.975, freedom), 3) == TABLE[freedom]


@settings(deadline=None)
@given(st.floats(0.51, 0.9999))
def test_one_and_two_degrees_have_closed_forms(share: float) -> None:
    """Cauchy's quantile, and 2 u sqrt(2 / (1 - 4 u^2)) with u = share - 1/2."""
    u = share - 0.5
    assert student_quantile(share, 1) == pytest.approx(math.tan(math.pi * u), rel=1e-9)
    two = 2 * u * math.sqrt(2 / (1 - 4 * u * u))
    assert student_quantile(share, 2) == pytest.approx(two, rel=1e-9)


def test_many_degrees_are_the_normal() -> None:
    for freedom in (9e6, 1e7, 1e9, math.inf):
        expected = NormalDist().inv_cdf(0.975)
        assert student_quantile(0.975, freedom) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.6, 60.0), st.floats(0.6, 0.99))
def test_the_density_up_to_the_quantile_is_the_share(freedom: float, share: float) -> None:
    """Simpson's sum of the density, t = sqrt(freedom) tan(angle): cos(angle) ** (freedom - 1)."""
    end = math.atan(student_quantile(share, freedom) / math.sqrt(freedom))
    steps = 2000
    parts = [math.cos(end * i / steps) ** (freedom - 1) for i in range(steps + 1)]
    weights = [1 if i in (0, steps) else 4 if i % 2 else 2 for i in range(steps + 1)]
    area = sum(w * p for w, p in zip(weights, parts, strict=True)) * end / steps / 3
    front = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    assert 0.5 + front / math.sqrt(math.pi) * area == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(("share", "freedom"), [(0.4, 3), (1.0, 3), (0.9, 0), (0.9, math.nan)])
def test_what_has_no_quantile(share: float, freedom: float) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        student_quantile(share, freedom)
