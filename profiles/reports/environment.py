"""The templates, and the filters that they use."""

from pathlib import Path

import jinja2

from nemotrt.charts.number import number
from nemotrt.profiles.runs.record.result import MetricValue


def environment() -> jinja2.Environment:
    """Return the environment of the report's templates; everything is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = _number
    made.filters["headline"] = _headline
    return made


def _number(value: float | None) -> str:
    """Return a number with four significant digits."""
    return "" if value is None else number(value)


def _headline(metric: MetricValue, statistic: str = "p50") -> str:
    """Return a metric's main number: its value, or a statistic, which is its median."""
    if metric.value is not None:
        return number(metric.value)
    return "-" if metric.statistics is None else number(getattr(metric.statistics, statistic))
