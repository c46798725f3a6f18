"""The throughput-latency curve, and the best configuration under a latency target."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import click

from nemotrt.commandline.kinds import ABOVE_0
from nemotrt.commandline.options import option
from nemotrt.engines.model.numerics import BUILT, CHOSEN, Precision
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import (
    THIS_MACHINE,
    DeploymentOptions,
    deploy,
    resolve_gpu,
)
from nemotrt.profiles.planning.answers.plan import Range, rate_of
from nemotrt.profiles.planning.sources.known_models import load_source
from nemotrt.profiles.planning.time.roofline import Scenario

ANY_PRECISION = "any"
MANY_PLAYS = 6  # of batches where straight lines point
WELL_MISSED = 1.05  # a share of the limit; plays make latencies a little uneven below it


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What `concurrency` users get."""

    concurrency: int
    batch_size: int
    tokens_per_s: Range
    ttft_ms: float
    tpot_ms: float


@dataclass(frozen=True, slots=True)
class LatencyTarget:
    """The slowest that a user accepts; None where anything goes."""

    tpot_ms: float | None = option(None, "Slowest accepted time per output token.", kind=ABOVE_0)
    ttft_ms: float | None = option(None, "Slowest accepted time to the first token.", kind=ABOVE_0)

    def share(self, ttft_ms: float, tpot_ms: float) -> float:
        """Return the slower latency as a share of its limit; 0 without a limit."""
        pairs = (ttft_ms, self.ttft_ms), (tpot_ms, self.tpot_ms)
        return max((value / limit for value, limit in pairs if limit), default=0.0)

    def is_met(self, ttft_ms: float, tpot_ms: float) -> bool:
        """Whether both latencies are within the target."""
        return self.share(ttft_ms, tpot_ms) <= 1


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """What is planned in: one precision, the checkpoint's own, or the fastest of all."""

    precision_name: str | None = option(
        None,
        "Precision of the linears; any: the fastest within the target, on each GPU.",
        "--precision",
        kind=click.Choice([*(precision.value for precision in BUILT), ANY_PRECISION]),
        unset="the checkpoint's own, else bf16",
    )

    @property
    def is_any(self) -> bool:
        """Whether the fastest is looked for."""
        return self.precision_name == ANY_PRECISION

    @property
    def precision(self) -> Precision | None:
        """The one that was named; None for the checkpoint's own, and for any."""
        return Precision(self.precision_name) if self.precision_name and not self.is_any else None

    def deployments(self, options: DeploymentOptions) -> list[Deployment]:
        """Return what to choose among; raises ConfigError as `deploy` and `each_precision`."""
        return each_precision(options) if self.is_any else [deploy(options)]


def curve(deployment: Deployment) -> list[CurvePoint]:
    """Return the points at powers of two up to the largest batch, and once past it.

    Past the largest batch users queue: throughput stays, and so do the latencies of the batch.
    """
    largest = deployment.max_batch_size()
    users = [1]
    while users[-1] * 2 < largest:
        users.append(users[-1] * 2)
    users += [largest, 2 * largest]
    return [_point(deployment, count, largest) for count in sorted(set(users))]


def _point(deployment: Deployment, users: int, largest: int) -> CurvePoint:
    batch = min(users, largest)
    best = deployment.steady_state(users, batch, Scenario.BEST)
    rate = rate_of(deployment, users, batch)
    return CurvePoint(users, batch, rate, best.ttft_ms, best.tpot_ms)


def best_under(deployments: Sequence[Deployment], target: LatencyTarget) -> tuple[Deployment, int]:
    """Return the deployment and batch of the highest throughput within the target.

    Latencies and throughput grow with the batch, so the largest batch within the target is found
    by bisection. The fastest goes first; of the others only faster batches are tried.

    Raises:
        NoFeasiblePlanError: no deployment meets the target even for one user.
    """
    largest: dict[int, int] = {}
    misses: dict[int, str] = {}
    for place, deployment in enumerate(deployments):
        try:
            largest[place] = deployment.max_batch_size()
        except NoFeasiblePlanError as error:
            misses[place] = error.message.rstrip(".")
    best, best_rate = None, 0.0
    most_first = sorted(largest, key=lambda n: _rate(deployments[n], largest[n]), reverse=True)
    for place in most_first:
        search = _Search(deployments[place], target)
        batch = search.largest_batch(largest[place], faster_than=best_rate)
        if batch:
            best = deployments[place], batch
            best_rate = _rate(*best)
        elif best is None:
            misses[place] = search.alone()
    if best is None:
        told = [f"{one.formats.precision}: {misses[n]}" for n, one in enumerate(deployments)]
        raise NoFeasiblePlanError("The latency target cannot be met. " + "; ".join(told) + ".")
    return best


def _rate(deployment: Deployment, batch: int) -> float:
    return deployment.tokens_per_s(batch, batch, Scenario.BEST)


class _Tried(NamedTuple):
    """A batch, and its slowest latency as a share of the limit: met up to 1."""

    batch: int
    share: float


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks for the batches of one deployment within a target."""

    deployment: Deployment
    target: LatencyTarget

    def largest_batch(self, most: int, faster_than: float) -> int:
        """Return the largest batch within the target whose rate is above another; 0 without one.

        Latencies are nearly straight lines of the batch, so that where two batches point is tried,
        and after a few of those the middle.
        """
        batches = range(1, most + 1)
        slower = bisect.bisect_right(batches, faster_than, key=lambda n: _rate(self.deployment, n))
        if slower == most or (slower and self._try(slower + 1).share > WELL_MISSED):
            return 0
        first = met = self._try(1)
        if met.share > 1:
            return 0
        end, missed = most + 1, None
        probe = self._guess(most)
        for num_plays in count():
            if end - met.batch == 1:
                break
            middle = (met.batch + end) // 2
            tried = self._try(min(max(probe, met.batch + 1), end - 1))
            if tried.share <= 1:
                first, met = met, tried
            else:
                end, missed = tried.batch, tried
            probe = _between(met, missed or first) if num_plays < MANY_PLAYS else middle
        return met.batch if _rate(self.deployment, met.batch) > faster_than else 0

    def alone(self) -> str:
        """Say what one user gets."""
        found = self.deployment.steady_state(1, 1, Scenario.BEST)
        return (
            f"one user gets {found.ttft_ms:.0f} ms to the first token and {found.tpot_ms:.1f} ms "
            "for each other one"
        )

    def _guess(self, most: int) -> int:
        """Return about the largest batch by mean rates, where the search begins."""
        target_ms = self.target.tpot_ms
        if target_ms is None:
            return most

        def user_ms(batch: int) -> float:
            return 1e3 * batch / _rate(self.deployment, batch)

        return bisect.bisect_right(range(1, most + 1), target_ms, key=user_ms)

    def _try(self, batch: int) -> _Tried:
        found = self.deployment.steady_state(batch, batch, Scenario.BEST)
        return _Tried(batch, self.target.share(found.ttft_ms, found.tpot_ms))


def _between(one: _Tried, other: _Tried) -> int:
    """Return the batch at which a straight line through two has the whole limit."""
    slope = (other.share - one.share) / ((other.batch - one.batch) or 1)
    return one.batch + int((1 - one.share) / slope) if slope > 0 else other.batch


def each_precision(options: DeploymentOptions) -> list[Deployment]:
    """Return the deployment in every precision that its GPU can run, the checkpoint's own too.

    Raises:
        ConfigError: a name is unknown, or no precision can run; that of the last one tried.
    """
    # A CPU is measured for each precision, a GPU's profile serves all.
    gpu = None if options.gpu == THIS_MACHINE else resolve_gpu(options)
    found, refusal = [], None
    own = load_source(options.model).quantization
    for precision in dict.fromkeys((*CHOSEN, *([own.precision] if own else []))):
        try:
            found.append(deploy(options.at(precision=precision), gpu))
        except ConfigError as error:  # the device has no such arithmetic
            refusal = error
    if refusal is not None and not found:
        raise refusal
    return found
