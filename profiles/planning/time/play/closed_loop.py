"""Throughput and latency of a closed loop: every finished request is replaced by a new one."""

from dataclasses import dataclass

from nemotrt.profiles.planning.time.play.requests import Load
from nemotrt.profiles.planning.time.play.scheduler import play
from nemotrt.profiles.planning.time.roofline import Roofline
from nemotrt.profiles.planning.time.step import (
    ShardedModel,
    StepTime,
    call_seconds,
    decode_step_time,
    mean_context,
    prefill_s,
)


@dataclass(frozen=True, slots=True)
class Users:
    """Who asks: so many users with prompts and answers of one length, and how many may run."""

    isl: int
    osl: int
    concurrency: int
    max_batch_size: int
    max_num_tokens: int
    shortest_share: float = 1.0  # of both lengths, which are then the longest
    spreads: tuple[float, float] = (0.0, 0.0)  # of both lengths, which are then means
    splits_prompts: bool = True
    kept_tokens: int = 0  # first tokens of a prompt whose state is there
    kept_share: float = 1.0  # of the requests

    @property
    def batch_size(self) -> int:
        """The sequences that run."""
        return min(self.concurrency, self.max_batch_size)


@dataclass(frozen=True, slots=True)
class Cycle:
    """One round of the loop, in which every sequence of the batch is answered once."""

    batch_size: int
    seconds: float
    tokens_per_s: float
    step: StepTime


@dataclass(frozen=True, slots=True)
class SteadyState:
    """What users of a model on a device get.

    tokens_per_s counts generated tokens over all users. The times to the first token have the
    wait for a slot in them, queue_ms: the mean, two percentiles, and ttft_burst_ms of the last
    request of the batch when all come at once to an idle engine.
    """

    batch_size: int
    tokens_per_s: float
    ttft_ms: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    ttft_burst_ms: float
    tpot_ms: float
    queue_ms: float
    step: StepTime


def cycle(sharded: ShardedModel, on: Roofline, users: Users) -> Cycle:
    """Return the loop's round by mean rates.

    In it every sequence of the batch is prefilled once and takes osl - 1 decode steps, at its mean
    context (fewer where guesses hold); prefills stop the decoding of the others. So a batch of b
    gives

        b * osl tokens in (osl - 1) * step(b) + b * prefill + the request's own overhead seconds.
    """
    batch_size = users.batch_size
    step = decode_step_time(sharded, on, batch_size, mean_context(users.isl, users.osl))
    prefills_s = _prefills_s(sharded, on, users)
    num_steps = (users.osl - 1) / sharded.tokens_per_step
    seconds = num_steps * step.total / 1e3 + prefills_s + on.request_s()
    return Cycle(batch_size, seconds, batch_size * users.osl / seconds, step)


def _prefills_s(sharded: ShardedModel, on: Roofline, users: Users) -> float:
    """Return the seconds of a prompt of each sequence, of what is not kept of it."""
    lengths = users.isl, users.max_num_tokens, users.batch_size
    if not users.kept_tokens:
        return prefill_s(sharded, on, *lengths)
    kept = min(users.kept_tokens, users.isl - 1)
    rest_s = prefill_s(sharded, on, users.isl - kept, *lengths[1:], start=kept)
    if users.kept_share == 1:
        return rest_s
    whole_s = prefill_s(sharded, on, *lengths)
    return users.kept_share * rest_s + (1 - users.kept_share) * whole_s


def steady_state(sharded: ShardedModel, on: Roofline, users: Users) -> SteadyState:
    """Return the steady state: throughput by mean rates, latencies by playing the scheduler."""
    found = cycle(sharded, on, users)
    batch_size = found.batch_size
    lengths = users.isl, users.osl
    is_mixed = on.engine.mixes_prompts
    load = Load(
        *lengths,
        num_users=batch_size,
        max_num_tokens=users.max_num_tokens,
        is_mixed=is_mixed,
        shortest_share=users.shortest_share,
        spreads=users.spreads,
        splits_prompts=users.splits_prompts,
        kept_tokens=users.kept_tokens,
        kept_share=users.kept_share,
        num_checked=sharded.num_checked,
        tokens_per_step=sharded.tokens_per_step,
    )
    played = play(load, call_seconds(sharded, on), on.request_s())
    queue_s = found.seconds * (users.concurrency - batch_size) / batch_size
    before_s = queue_s + on.request_s()
    return SteadyState(
        batch_size=batch_size,
        tokens_per_s=found.tokens_per_s,
        ttft_ms=1e3 * (before_s + played.mean_s),
        ttft_p50_ms=1e3 * (before_s + played.percentile_s(50)),
        ttft_p95_ms=1e3 * (before_s + played.percentile_s(95)),
        ttft_burst_ms=1e3 * (on.request_s() + played.burst_s),
        tpot_ms=1e3 * played.token_s,
        queue_ms=1e3 * queue_s,
        step=found.step,
    )


def wait_s(alone_s: float, others_s: float, cycle_s: float, step_s: float) -> float:
    """Return the mean wait of a prompt: the rest of a decode step, and prefills before it.

    Source: mean wait of an M/D/1 queue, rho / (2 (1 - rho)) services, with rho the share of the
    cycle in which another request is prefilled; never more than half of those prefills. It holds
    where requests come at random, as after the tools and the thinking of agents.
    """
    if not others_s:
        return 0.0
    rho = min(others_s / cycle_s, 0.99)
    return min(alone_s * rho / (2 * (1 - rho)), others_s / 2) + step_s / 2
