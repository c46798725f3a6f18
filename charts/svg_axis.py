"""Scales of an SVG chart: a value to a pixel, and round ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOG_MARGIN = 1.2


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def pixel(self, value: float) -> float:
        """Return where `value` is drawn."""
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values across the axis: decades (1, 2, 5 if few), or about five steps."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            factors = (1, 2, 5) if self.high / self.low < 1000 else (1,)
            values = [f * 10.0**power for power in range(first, last + 1) for f in factors]
            return [value for value in values if self.low <= value <= self.high]
        step = _round_step((self.high - self.low) / 5)
        count = int((self.high - self.low) / step + 1e-9)
        first_tick = math.ceil(self.low / step) * step
        return [first_tick + index * step for index in range(count + 1)]


def axis(values: Sequence[float], start: float, end: float, is_log: bool) -> Axis:
    """Return the axis that shows all `values`: from 0 if linear, with a margin if not."""
    low, high = min(values), max(values)
    if is_log:
        return Axis(low / LOG_MARGIN, high * LOG_MARGIN, start, end, is_log)
    top = high if high > 0 else 1.0
    return Axis(min(low, 0.0), top * 1.05, start, end)


def tick_text(value: float) -> str:
    """Return a tick's text: at most three figures, thousands as k."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def _round_step(raw: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least `raw`."""
    power: float = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
