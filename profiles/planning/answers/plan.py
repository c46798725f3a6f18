"""A plan: what a model does on a GPU at one load, as one record."""

import math
from dataclasses import dataclass, replace

from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.notes import notes_of, track_record
from nemotrt.profiles.planning.memory.capacity import (
    MAX_BATCH_SIZE,
    Memory,
)
from nemotrt.profiles.planning.memory.weights import num_parameters
from nemotrt.profiles.planning.time.corrections import corrections_of, unmeasured
from nemotrt.profiles.planning.time.engine_profile import Admission
from nemotrt.profiles.planning.time.operators import Resource, decode_call
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import StepTime, mean_context, step_time

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Range:
    """A predicted figure: the low end, the best estimate and the high end of its band."""

    low: float
    best: float
    high: float


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """What one backend of ours would build for the plan's GPU, each model at its largest batch.

    `ratio` is to the baseline on the same backend; figures are None where `notes` say why.
    """

    name: str
    max_batch_size: int | None
    baseline_max_batch_size: int | None
    ratio: Range | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Speculated:
    """What speculation brings the same users.

    Attributes:
        guesses: tokens that a step checks beside the one that it makes.
        accepted: guesses that hold in a step of a sequence, on average; assumed.
        plain_step_ms: a decode step without guesses.
        plain_tokens_per_s: the rate without guesses, of a batch as large as then fits.
        break_even_accepted: guesses that must hold for the same rate; None if not even all of them
            are enough.
    """

    guesses: int
    accepted: float
    plain_step_ms: float
    plain_tokens_per_s: float
    break_even_accepted: float | None


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One operator of the decode step, on one GPU.

    Attributes:
        name: such as "mamba in_proj".
        resource: what kind of work it is: "weights", "attention", "ssm", ...
        ms: its time, with what it waits for.
        memory_ms: the time that its bytes take.
        compute_ms: the time that its products take.
        num_bytes: bytes that it reads and writes.
        num_flops: floating-point operations, two for each product.
    """

    name: str
    resource: str
    ms: float
    memory_ms: float
    compute_ms: float
    num_bytes: float
    num_flops: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A prediction; nothing in it was measured. Bytes are of one GPU, rates of all `tp` GPUs.

    Attributes:
        isl: tokens of a prompt; `osl`: tokens of an answer.
        request_bytes: state and KV cache of one sequence at its full length.
        memory: where the bytes of the GPU go.
        admission: whether an engine reserves a sequence's full length or fills by mean occupancy.
        max_batch_size: sequences that fit at once; `limited_by` says what ends it.
        batch_size: sequences that run at once; `concurrency`: users.
        max_num_tokens: new tokens in one call.
        max_seq_len_at_batch_1: the longest sequence that fits alone.
        decode_step_ms: one decode step at the mean context, by what it waits for; `bound_by` names
            the largest part.
        operators: the same step by operator.
        ttft_ms: mean time to the first token, the wait for a slot counted; `ttft_p50_ms` and
            `ttft_p95_ms` are percentiles.
        ttft_burst_ms: of the last request when a whole batch arrives at once at an idle engine.
        tpot_ms: mean time per output token after the first; `queue_ms`: mean wait for a slot.
        tokens_per_s: generated tokens of all users.
        power_w: all GPUs; None where the board's limit is unknown.
        usd_per_million_tokens: of generated tokens; None without a price.
        default_corrections: corrections that no measurement on this GPU supports.
        notes: what the prediction leaves out or assumes.
        track_record: how far earlier predictions for this GPU and engine were off.
        baseline: the plan of the model compared with; `ratio`: this one's rate over its rate.
        reason: why the ratio is what it is.
        engines: what our backends would build for this GPU.
        speculation: with guesses only.
    """

    schema_version: int
    model: str
    gpu: str
    engine: str
    precision: Precision
    kv_dtype: NumberFormat
    ssm_dtype: NumberFormat
    tp: int
    isl: int
    osl: int
    num_parameters: int
    weights_bytes: int
    kv_cache_bytes_per_token: int
    ssm_state_bytes_per_request: int
    conv_state_bytes_per_request: int
    request_bytes: int
    workspace_bytes: int
    memory_utilization: float
    memory: Memory
    admission: Admission
    max_batch_size: int
    limited_by: str
    batch_size: int
    concurrency: int
    max_num_tokens: int
    max_seq_len: int
    max_seq_len_at_batch_1: int
    decode_step_ms: StepTime
    bound_by: str
    operators: tuple[OperatorTime, ...]
    ttft_ms: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    ttft_burst_ms: float
    tpot_ms: float
    queue_ms: float
    tokens_per_s: Range
    tokens_per_s_per_user: float
    power_w: Range | None
    joules_per_token: Range | None
    usd_per_million_tokens: Range | None
    default_corrections: tuple[str, ...]
    notes: tuple[str, ...]
    track_record: tuple[str, ...]
    baseline: "Plan | None" = None
    ratio: Range | None = None
    reason: str | None = None
    engines: tuple[BuiltEngine, ...] = ()
    speculation: Speculated | None = None


def make_plan(
    deployment: Deployment,
    concurrency: int | None = None,
    batch_size: int | None = None,
    usd_per_hour: float | None = None,
) -> Plan:
    """Return the plan of a deployment; without a load, of as many users as fit.

    Raises:
        NoFeasiblePlanError: not one sequence fits, or not `batch_size`.
        ConfigError: a figure that the plan needs is missing from the GPU's profile.
    """
    fit = deployment.fit
    largest = deployment.max_batch_size()
    if batch_size is not None:
        fit.require(batch_size, deployment.planned_tokens, deployment.model_name)
    users = concurrency or batch_size or largest
    batch = min(batch_size or largest, users)
    best = deployment.steady_state(users, batch, Scenario.BEST)
    rate = rate_of(deployment, users, batch)
    watts = power_w(deployment, batch)
    request, formats = deployment.request, deployment.formats
    return Plan(
        schema_version=SCHEMA_VERSION,
        model=deployment.model_name,
        gpu=deployment.gpu.name,
        engine=deployment.engine.name,
        precision=formats.precision,
        kv_dtype=formats.kv,
        ssm_dtype=formats.ssm,
        tp=deployment.tp,
        isl=deployment.isl,
        osl=deployment.osl,
        num_parameters=num_parameters(deployment.model),
        weights_bytes=fit.budget.weights_bytes,
        kv_cache_bytes_per_token=request.kv_cache_bytes_per_token,
        ssm_state_bytes_per_request=request.ssm_state_bytes,
        conv_state_bytes_per_request=request.conv_state_bytes,
        request_bytes=request.total_bytes(deployment.planned_tokens),
        workspace_bytes=fit.workspace_bytes(batch),
        memory_utilization=deployment.memory_utilization,
        memory=fit.memory(batch, deployment.planned_tokens),
        admission=deployment.admission,
        max_batch_size=largest,
        limited_by="memory" if largest < MAX_BATCH_SIZE else "max_batch_size",
        batch_size=batch,
        concurrency=users,
        max_num_tokens=deployment.max_num_tokens,
        max_seq_len=deployment.isl + deployment.osl,
        max_seq_len_at_batch_1=fit.max_seq_len(),
        decode_step_ms=best.step,
        bound_by=best.step.bound_by,
        operators=operator_times(deployment, batch),
        ttft_ms=best.ttft_ms,
        ttft_p50_ms=best.ttft_p50_ms,
        ttft_p95_ms=best.ttft_p95_ms,
        ttft_burst_ms=best.ttft_burst_ms,
        tpot_ms=best.tpot_ms,
        queue_ms=best.queue_ms,
        tokens_per_s=rate,
        tokens_per_s_per_user=best.tokens_per_s / users,
        power_w=watts,
        joules_per_token=_joules_per_token(watts, rate),
        usd_per_million_tokens=_usd_per_million_tokens(usd_per_hour or price_of(deployment), rate),
        default_corrections=tuple(unmeasured(deployment.gpu)),
        notes=notes_of(deployment, largest),
        track_record=track_record(deployment.gpu.name, deployment.engine.name),
        speculation=_speculated(deployment, concurrency, batch_size, users, batch),
    )


def _speculated(
    deployment: Deployment, concurrency: int | None, batch_size: int | None, users: int, batch: int
) -> Speculated | None:
    """Return what the guesses of a plan of `users` in a batch bring; None without any.

    The round of a batch is its steps and the rest, so with x guesses that hold it takes
    (osl - 1) / (1 + x) steps; at the break-even that gives the rate without guesses.
    """
    drafts = deployment.drafts
    if drafts is None:
        return None
    plain = replace(deployment, drafts=None)
    largest = plain.max_batch_size()
    asked = concurrency or batch_size or largest
    found = plain.steady_state(asked, min(batch_size or largest, asked), Scenario.BEST)
    ours = deployment.steady_state(users, batch, Scenario.BEST)
    round_s = batch * deployment.osl / ours.tokens_per_s
    steps_s = (deployment.osl - 1) * ours.step.total / 1e3
    rest_s = round_s - steps_s / drafts.tokens_per_step
    left_s = batch * deployment.osl / found.tokens_per_s - rest_s
    needed = steps_s / left_s - 1 if left_s > 0 and steps_s else math.inf
    return Speculated(
        guesses=drafts.guesses,
        accepted=drafts.accepted,
        plain_step_ms=found.step.total,
        plain_tokens_per_s=found.tokens_per_s,
        break_even_accepted=max(needed, 0.0) if needed <= drafts.guesses else None,
    )


def rate_of(deployment: Deployment, users: int, batch_size: int) -> Range:
    """Return the throughput from the low to the high end of all bands."""
    ends = (Scenario.LOW, Scenario.BEST, Scenario.HIGH)
    return Range(*(deployment.tokens_per_s(users, batch_size, end) for end in ends))


def operator_times(deployment: Deployment, batch_size: int) -> tuple[OperatorTime, ...]:
    """Return each operator of a decode step at the mean context."""
    sharded = deployment.sharded
    context = mean_context(deployment.isl, deployment.osl)
    call = decode_call(batch_size, context, sharded.num_checked)
    found = tuple(sharded.operators(call))
    on = roofline(deployment.gpu, deployment.engine, Scenario.BEST).on_call(
        found, is_decode=True, tp=deployment.tp
    )
    return tuple(
        OperatorTime(
            operator.name,
            operator.resource.value,
            on.seconds(operator) * 1e3,
            on.memory_seconds(operator) * 1e3,
            on.compute_seconds(operator) * 1e3,
            operator.num_bytes,
            operator.num_flops,
        )
        for operator in found
    )


# More of the board's limit for each share of the datasheet's products that a step multiplies.
# Source: 32 ML.ENERGY rows on H100 (vLLM 0.11): 0.69 of the limit and 1.2 of that share, to 8.5 %.
POWER_BY_COMPUTE = 1.2


def power_w(deployment: Deployment, batch_size: int) -> Range | None:
    """Return the watts of all GPUs while they decode; None where nobody sourced the board's limit.

    A share of the limit (correction `power`) for a step that only reads memory, and more by what
    it multiplies; never more than the limit.
    """
    limit_w = deployment.gpu.datasheet.tdp_w
    power = corrections_of(deployment.gpu).power
    if limit_w is None or power is None:
        return None
    context = mean_context(deployment.isl, deployment.osl)
    call = decode_call(batch_size, context, deployment.sharded.num_checked)
    floor = roofline(deployment.gpu, deployment.engine, Scenario.FLOOR)
    found = deployment.sharded.operators(call)
    products_s = sum(
        floor.compute_seconds(operator)
        for operator in found
        if operator.resource is not Resource.INTERCONNECT
    )
    on = roofline(deployment.gpu, deployment.engine, Scenario.BEST)
    step_s = step_time(deployment.sharded, on, call).total / 1e3
    more = POWER_BY_COMPUTE * products_s / step_s
    all_w = limit_w * deployment.tp
    return Range(*(all_w * min(end + more, 1.0) for end in (power.low, power.best, power.high)))


def _joules_per_token(watts: Range | None, rate: Range) -> Range | None:
    """Return board power over throughput; the ends combine with the best rate."""
    if watts is None:
        return None
    return Range(*(end / rate.best for end in (watts.low, watts.best, watts.high)))


def price_of(deployment: Deployment) -> float | None:
    """Return an engine's share of the machine's price; None where a profile has none."""
    machine = deployment.gpu.machine
    if machine is None or machine.usd_per_hour is None:
        return None
    return machine.usd_per_hour / deployment.num_engines


def _usd_per_million_tokens(usd_per_hour: float | None, rate: Range) -> Range | None:
    """Return the price of a million generated tokens; the fastest end is the cheapest."""
    if usd_per_hour is None:
        return None
    per_token = usd_per_hour / 3600 * 1e6
    return Range(per_token / rate.high, per_token / rate.best, per_token / rate.low)
