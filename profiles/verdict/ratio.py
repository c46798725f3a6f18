"""The ratio of two runs' throughputs with a confidence interval.

In a closed loop of c users with answers of one length, requests end one after another in a fixed
order, so the time from one end to the next has a period of c: interval k is a sample of phase
k mod c. The variance of the window's length is the sum of what varies within each phase; what
differs between phases is no noise. Neighbouring intervals share slow drifts, which widens the
variance by (1 + r) / (1 - r), r being the correlation of neighbours.
Source: Law and Kelton, Simulation Modeling and Analysis, sections 4.4 and 9.5.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from nemotrt.errors import ConfigError
from nemotrt.profiles.runs.metrics.student import CONFIDENCE, confident_reach
from nemotrt.profiles.runs.record.result import ProfileResult
from nemotrt.profiles.verdict.comparability import mean_log_rate

# From so many runs a side on Welch's interval holds the ratio in 94 to 97 of 100 cases; of two
# runs it is 94 to 98 (tests/profiles/verdict/test_coverage.py).
MIN_RUNS = 3
# What one run a side can't see is allowed for: 1.96 * sqrt(2) * 3 % are 8.3 %, for runs that differ
# by 3 % from one start, or one slow drift, to the next. Chosen; --repeat 3 measures it.
ALLOWANCE = 0.10
MAX_CORRELATION = 0.8  # beyond it the run is too short to say anything


class Basis(StrEnum):
    """What an interval rests on."""

    ONE_RUN = "one run a side"  # noise within the runs, and ALLOWANCE for what they can't show
    TWO_RUNS = "two runs a side"  # a difference of two is a rough guess of what varies
    REPEATS = "repeats"  # what varies from run to run

    @classmethod
    def of(cls, num_runs: int) -> "Basis":
        """Return the basis of a side's number of runs, the smaller of two."""
        if num_runs >= MIN_RUNS:
            return cls.REPEATS
        return cls.TWO_RUNS if num_runs > 1 else cls.ONE_RUN


@dataclass(frozen=True, slots=True)
class Ratio:
    """Candidate over baseline; [low, high] holds the true ratio, as well as its basis allows.

    With CONFIDENCE it does so of REPEATS alone.
    """

    best: float
    low: float
    high: float
    basis: Basis = Basis.REPEATS

    @property
    def text(self) -> str:
        """The interval in words; what is no 95 % interval is not called one."""
        span = f"{self.low:.2f} to {self.high:.2f}"
        if self.basis is Basis.REPEATS:
            return f"{CONFIDENCE:.0%} interval {span}"
        if self.basis is Basis.TWO_RUNS:
            return f"a rough interval of two runs a side, {span}"
        return f"one run a side: undecided within {self.high / self.best - 1:.0%}, {span}"

    @property
    def is_distinguishable(self) -> bool:
        """Whether one of the two is faster."""
        return not self.low <= 1 <= self.high


@dataclass(frozen=True, slots=True)
class Spread:
    """The variance of the logarithm of a run's throughput, and its degrees of freedom."""

    variance: float
    freedom: float


def throughput_ratio(
    candidates: Sequence[ProfileResult], baselines: Sequence[ProfileResult]
) -> Ratio:
    """Return the ratio of two sides' tokens per second, with Welch's interval on its logarithm.

    A side's rate is the geometric mean of its runs of the same load.

    Raises:
        ConfigError: a run has no steady window, or too few requests in it.
    """
    sides = candidates, baselines
    basis = Basis.of(min(map(len, sides)))
    best = math.exp(mean_log_rate(candidates) - mean_log_rate(baselines))
    spreads = [_side_spread(runs) for runs in sides]
    both = _sum(spreads)
    reach = 0.0
    if both.variance > 0:
        reach = confident_reach(both.freedom) * math.sqrt(both.variance)
    if basis is Basis.ONE_RUN:
        reach = max(reach, math.log1p(ALLOWANCE))
    return Ratio(best, best * math.exp(-reach), best * math.exp(reach), basis)


def _sum(spreads: Sequence[Spread]) -> Spread:
    """Return the spread of a sum of independent parts, with Welch and Satterthwaite's freedom.

    Source: Satterthwaite, An approximate distribution of estimates of variance components,
    Biometrics Bulletin 2 (1946). A part without variance adds no uncertainty, so none to that.
    """
    varying = [spread for spread in spreads if spread.variance > 0]
    variance = sum(spread.variance for spread in varying)
    if not varying:
        return Spread(0.0, math.inf)
    return Spread(variance, variance**2 / sum(s.variance**2 / s.freedom for s in varying))


def _side_spread(runs: Sequence[ProfileResult]) -> Spread:
    """Return how far the mean of a side's runs may be off.

    What varies between the runs has slow drifts and new starts in it too. Of fewer than MIN_RUNS it
    counts only if it is more than what varies within them: two may agree by chance.
    """
    if len(runs) >= MIN_RUNS:
        return _between(runs)
    within = [spread_of(run) for run in runs]
    count = len(within)
    total = _sum(within)
    inner = Spread(total.variance / count**2, total.freedom)
    if count == 1:
        return inner
    return max(inner, _between(runs), key=lambda spread: spread.variance)


def _between(runs: Sequence[ProfileResult]) -> Spread:
    """Return how far the mean may be off by what differs from run to run."""
    rates = [math.log(run.metric("tokens_per_s")) for run in runs]
    return Spread(float(np.var(rates, ddof=1)) / len(runs), len(runs) - 1.0)


def spread_of(result: ProfileResult) -> Spread:
    """Return how far a run's throughput may be off.

    Raises:
        ConfigError: too few requests ended in the window.
    """
    if result.window_s is None:
        raise ConfigError("a run without a steady window has no rate to compare: run longer.")
    start_s, end_s = result.window_s
    ends = sorted(r.arrivals_s[-1] for r in result.requests if r.is_complete)
    intervals = np.diff([start_s, *(at_s for at_s in ends if start_s < at_s <= end_s)])
    num_phases = result.workload.concurrency
    phases = [np.arange(phase, intervals.size, num_phases) for phase in range(num_phases)]
    repeated = [phase for phase in phases if phase.size > 1]
    if len(repeated) < min(num_phases, 2):
        raise ConfigError(
            f"{intervals.size} requests ended in the steady window of {num_phases} users; more "
            "than 1 a user is needed to tell noise from difference: run longer."
        )
    rest = intervals.copy()
    for phase in phases:
        rest[phase] -= intervals[phase].mean()
    parts = [(phase.size * rest[phase].var(ddof=1), phase.size - 1) for phase in repeated]
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return Spread(0.0, float(intervals.size - num_phases))
    freedom = total**2 / sum(variance**2 / free for variance, free in parts)
    # a phase that was seen once is taken to vary as the others do
    total *= intervals.size / sum(phase.size for phase in repeated)
    correlation = _neighbour_correlation(rest, num_phases)
    widened = total * (1 + correlation) / (1 - correlation)
    return Spread(float(widened / intervals.sum() ** 2), float(freedom))


def _neighbour_correlation(rest: npt.NDArray[np.float64], bias: int) -> float:
    """Return the correlation of neighbours, at least 0.

    Taking the phases' means out lowers it by about phases / intervals, which is added back.
    """
    found = float(rest[:-1] @ rest[1:] / (rest @ rest)) + bias / rest.size
    return min(max(found, 0.0), MAX_CORRELATION)
