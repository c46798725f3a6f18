"""Throughput and latency of a closed loop: every finished request is replaced by a new one."""

from dataclasses import dataclass

from nemotrt.profiles.planning.time.roofline import Roofline
from nemotrt.profiles.planning.time.step import (
    ShardedModel,
    StepTime,
    decode_step_time,
    mean_context,
    prefill_s,
)


@dataclass(frozen=True, slots=True)
class SteadyState:
    """What users of a model on a device get.

    tokens_per_s counts generated tokens over all users. ttft_ms is the mean of a request that
    is in the batch, ttft_burst_ms that of the last one when all arrive at once; queue_ms is what
    users beyond the batch wait before that.
    """

    batch_size: int
    tokens_per_s: float
    ttft_ms: float
    ttft_burst_ms: float
    tpot_ms: float
    queue_ms: float
    step: StepTime


def steady_state(
    sharded: ShardedModel,
    on: Roofline,
    isl: int,
    osl: int,
    concurrency: int,
    max_batch_size: int,
    max_num_tokens: int,
) -> SteadyState:
    """Return the steady state of `concurrency` users when at most `max_batch_size` sequences run.

    In one cycle every sequence of the batch is prefilled once and takes osl - 1 decode steps, at
    its mean context; prefills stop the decoding of the others. So a batch of b gives

        b * osl tokens in (osl - 1) * step(b) + b * prefill seconds,

    and each user sees the prefills of the b - 1 others spread over its tokens.
    """
    batch_size = min(concurrency, max_batch_size)
    step = decode_step_time(sharded, on, batch_size, mean_context(isl, osl))
    num_steps = osl - 1
    prefills_s = prefill_s(sharded, on, isl, max_num_tokens, batch_size)
    decode_s = num_steps * step.total / 1e3
    cycle_s = decode_s + prefills_s
    alone_s = prefill_s(sharded, on, isl, max_num_tokens)
    others_s = prefills_s * (batch_size - 1) / batch_size
    return SteadyState(
        batch_size=batch_size,
        tokens_per_s=batch_size * osl / cycle_s,
        ttft_ms=1e3 * (alone_s + wait_s(alone_s, others_s, cycle_s, step.total / 1e3)),
        ttft_burst_ms=1e3 * prefills_s,
        tpot_ms=1e3 * (decode_s + others_s) / num_steps if num_steps else 0.0,
        queue_ms=1e3 * cycle_s * (concurrency - batch_size) / batch_size,
        step=step,
    )


def wait_s(alone_s: float, others_s: float, cycle_s: float, step_s: float) -> float:
    """Return the mean wait of a prompt: the rest of a decode step, and prefills before it.

    Source: mean wait of an M/D/1 queue, rho / (2 (1 - rho)) services, with rho the share of the
    cycle in which another request is prefilled; never more than half of those prefills.
    """
    if not others_s:
        return 0.0
    rho = min(others_s / cycle_s, 0.99)
    return min(alone_s * rho / (2 * (1 - rho)), others_s / 2) + step_s / 2
