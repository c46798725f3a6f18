"""From data to where it is drawn, with round ticks."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from nemotrt.charts.number import EXACT, number
from nemotrt.charts.spec import Line, Mark, Text

NUM_X_TICKS, NUM_Y_TICKS = 6, 5
LOG_MARGIN = 1.2
MAX_DECADES_SPLIT = 2.5  # up to which the ticks of a log axis are 1, 2, 5 of each decade


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values from `low` to `high` onto the places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return where `value` is drawn."""
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """Return two to `count` + 1 round values in the axis, if `count` is at least five."""
        decades = math.log10(self.high / self.low) if self.is_log else 0.0
        if decades < 1:
            return _steps(self.low, self.high, count)
        factors = (1, 2, 5) if decades < MAX_DECADES_SPLIT else (1,)
        every = math.ceil(decades / count) if len(factors) == 1 else 1
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [float(f"{f}e{power}") for power in powers if power % every == 0 for f in factors]
        return [value for value in values if self.low <= value <= self.high]


def axis_of(
    values: Collection[float],
    start: float,
    end: float,
    *,
    is_log: bool = False,
    headroom: float = 1.0,
) -> Axis:
    """Return the axis that shows all values: from 0 if linear, with a margin if logarithmic.

    Raises:
        ValueError: a value that no axis has: not finite, or not positive on a logarithmic one.
    """
    if not all(math.isfinite(value) and (value > 0 or not is_log) for value in values):
        raise ValueError(f"not on {'a logarithmic' if is_log else 'an'} axis: {values}")
    if is_log:
        low, high = (min(values), max(values)) if values else (1.0, 10.0)
        return Axis(low / LOG_MARGIN, high * LOG_MARGIN, start, end, is_log)
    return range_axis(min([0.0, *values]), max([0.0, *values]) * headroom, start, end)


def range_axis(low: float, high: float, start: float, end: float) -> Axis:
    """Return a linear axis of exactly this range; an empty range is widened to have a length."""
    return Axis(low, high if high > low else low + (abs(low) or 1.0), start, end)


def grid(x: Axis, y: Axis, x_label: str, y_label: str) -> Iterator[Mark]:
    """Yield grid lines, their numbers, and what the axes show; without a label `y` has none."""
    for value in x.ticks(NUM_X_TICKS):
        yield Line(((x(value), y.start), (x(value), y.end)), "rule")
        yield Text(x(value), y.start + 20, number(value, EXACT), "middle")
    yield Text((x.start + x.end) / 2, y.start + 38, x_label, "middle")
    if y_label:
        yield from upright_grid(y, x.start, x.end, y_label)


def upright_grid(y: Axis, left: float, right: float, label: str) -> Iterator[Mark]:
    """Yield the grid lines of an axis that points up, their numbers, and what it shows."""
    for value in y.ticks(NUM_Y_TICKS):
        yield Line(((left, y(value)), (right, y(value))), "rule")
        yield Text(left - 6, y(value) + 4, number(value, EXACT), "end")
    yield Text(6, 14, label)


def _steps(low: float, high: float, count: int) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten; exact, so no 0.30000000000000004."""
    first, last = Fraction(repr(float(low))), Fraction(repr(float(high)))
    raw = (last - first) / count
    power = Fraction(10) ** (Decimal(raw.numerator) / Decimal(raw.denominator)).adjusted()
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    places = range(math.ceil(first / step), math.floor(last / step) + 1)
    return sorted({float(place * step) for place in places})
