"""The throughput-latency curve, and the best configuration under a latency target."""

from collections.abc import Sequence
from dataclasses import dataclass

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

    def is_met(self, ttft_ms: float, tpot_ms: float) -> bool:
        """Whether both latencies are within the target."""
        in_tpot = self.tpot_ms is None or tpot_ms <= self.tpot_ms
        return in_tpot and (self.ttft_ms is None or ttft_ms <= self.ttft_ms)


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

    Latencies grow with the batch, so the largest batch within the target is found by bisection.

    Raises:
        NoFeasiblePlanError: no deployment meets the target even for one user.
    """
    found: list[tuple[float, Deployment, int]] = []
    misses = []
    for deployment in deployments:
        try:
            largest = deployment.max_batch_size()
        except NoFeasiblePlanError as error:
            misses.append(f"{deployment.formats.precision}: {error.message.rstrip('.')}")
            continue
        batch = _largest_batch(deployment, target, largest)
        if batch:
            rate = deployment.tokens_per_s(batch, batch, Scenario.BEST)
            found.append((rate, deployment, batch))
        else:
            alone = deployment.steady_state(1, 1, Scenario.BEST)
            misses.append(
                f"{deployment.formats.precision}: one user gets {alone.ttft_ms:.0f} ms to the "
                f"first token and {alone.tpot_ms:.1f} ms for each other one"
            )
    if not found:
        raise NoFeasiblePlanError("The latency target cannot be met. " + "; ".join(misses) + ".")
    _, deployment, batch = max(found, key=lambda item: item[0])
    return deployment, batch


def _largest_batch(deployment: Deployment, target: LatencyTarget, largest: int) -> int:
    low, high = 0, largest
    while low < high:
        middle = (low + high + 1) // 2
        state = deployment.steady_state(middle, middle, Scenario.BEST)
        is_met = target.is_met(state.ttft_ms, state.tpot_ms)
        low, high = (middle, high) if is_met else (low, middle - 1)
    return low


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
