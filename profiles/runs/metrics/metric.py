"""A metric's declaration: what it is called, its unit, its formula, and where that comes from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nemotrt.errors import NemotrtError
from nemotrt.profiles.runs.metrics.run_view import RunView


class NotComputableError(NemotrtError):
    """The run has no samples that this metric is defined on; it has no value, not the value 0."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of a run; `samples` returns one value of the whole run, or one a sample.

    `is_distribution` says which: a distribution is reported by its statistics.
    """

    name: str
    title: str
    unit: str
    formula: str
    source: str
    is_better_high: bool
    samples: Callable[[RunView], Sequence[float]]
    is_distribution: bool = False
