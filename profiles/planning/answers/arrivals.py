"""An open loop: requests that come at a rate, whoever is answered, and the rate that breaks it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.search import LatencyTarget
from nemotrt.profiles.planning.time.play.closed_loop import Users, cycle
from nemotrt.profiles.planning.time.play.requests import Load, Played
from nemotrt.profiles.planning.time.play.scheduler import play_arrivals
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import call_seconds

# Requests that are played, and more for each slot, since a large batch takes long to fill. Their
# times are drawn from a fixed seed: two rates differ in nothing but the rate.
NUM_REQUESTS, NUM_FOR_EACH_SLOT = 600, 6
SEED = 1
# The highest rate within a target is known to this share of it.
RESOLUTION = 0.01


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What requests get that come at random (Poisson); a prediction.

    `saturation_per_s` is the rate of the full batch: what comes faster waits ever longer.
    `breaks_at_per_s` is the highest rate at which 95 % of the first tokens, and the mean time per
    output token, are within the target; None where none was given.
    """

    rate_per_s: float
    share_of_saturation: float
    ttft_ms: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    tpot_ms: float
    saturation_per_s: float
    breaks_at_per_s: float | None
    target: LatencyTarget


def open_loop(
    deployment: Deployment, rate_per_s: float, batch_size: int, target: LatencyTarget
) -> OpenLoop:
    """Return what requests at a rate get of an engine with `batch_size` slots.

    Raises:
        NoFeasiblePlanError: not even a request that comes alone is within the target.
    """
    saturation = _saturation(deployment, batch_size)
    found = _played(deployment, rate_per_s, batch_size)
    breaks_at = None
    if target != LatencyTarget():
        breaks_at = _highest_rate(deployment, batch_size, target, saturation)
    request_ms = 1e3 * roofline(deployment.gpu, deployment.engine, Scenario.BEST).request_s()
    return OpenLoop(
        rate_per_s=rate_per_s,
        share_of_saturation=rate_per_s / saturation,
        ttft_ms=request_ms + 1e3 * found.mean_s,
        ttft_p50_ms=request_ms + 1e3 * found.percentile_s(50),
        ttft_p95_ms=request_ms + 1e3 * found.percentile_s(95),
        tpot_ms=1e3 * found.token_s,
        saturation_per_s=saturation,
        breaks_at_per_s=breaks_at,
        target=target,
    )


def notes(found: OpenLoop) -> Iterator[str]:
    """Yield what must be known beside the figures."""
    yield (
        "requests were played at Poisson arrivals of a fixed seed; their prompts are all new, and "
        "a burst waits longer"
    )
    if found.share_of_saturation >= 1:
        yield (
            "more come than the engine answers: their wait grows for as long as that lasts, and "
            "the times here are of these requests alone"
        )


def _saturation(deployment: Deployment, batch_size: int) -> float:
    """Return the requests a second of a batch that is always full."""
    on = roofline(deployment.gpu, deployment.engine, Scenario.BEST)
    lengths = deployment.isl, deployment.osl
    users = Users(*lengths, batch_size, batch_size, deployment.max_num_tokens)
    return cycle(deployment.sharded, on, users).tokens_per_s / deployment.osl


def _played(deployment: Deployment, rate_per_s: float, batch_size: int) -> Played:
    """Return the play of a rate."""
    on = roofline(deployment.gpu, deployment.engine, Scenario.BEST)
    load = Load(
        deployment.isl,
        deployment.osl,
        0,
        deployment.max_num_tokens,
        deployment.engine.mixes_prompts,
        num_checked=deployment.sharded.num_checked,
        tokens_per_step=deployment.sharded.tokens_per_step,
    )
    count, drawn = NUM_REQUESTS + NUM_FOR_EACH_SLOT * batch_size, random.Random(SEED)
    arrivals_s = list(accumulate(drawn.expovariate(rate_per_s) for _ in range(count)))
    return play_arrivals(load, call_seconds(deployment.sharded, on), arrivals_s, batch_size)


def _highest_rate(
    deployment: Deployment, batch_size: int, target: LatencyTarget, saturation: float
) -> float:
    """Return the highest rate within a target, by bisection below saturation."""
    request_s = roofline(deployment.gpu, deployment.engine, Scenario.BEST).request_s()

    def is_met(rate: float) -> bool:
        found = _played(deployment, rate, batch_size)
        first_ms = 1e3 * (request_s + found.percentile_s(95))
        return target.is_met(first_ms, 1e3 * found.token_s)

    low, high = saturation * 1e-3, saturation
    if is_met(high):
        return high
    if not is_met(low):
        raise NoFeasiblePlanError(
            "The latency target cannot be met: not even by a request that has the engine to itself."
        )
    while high - low > RESOLUTION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if is_met(middle) else (low, middle)
    return low
