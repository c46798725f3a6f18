"""The limits of an engine where the user gives none: what the planner says fits the GPU."""

import dataclasses
import math
from collections.abc import Callable

from nemotrt.build.backend_options import checked_options
from nemotrt.build.engine_builder import BuildSpec
from nemotrt.build.limit_options import GivenLimits
from nemotrt.build.plan_limits import missing_bytes, plan_limits
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.planning import ForeignRuntime, NotPlanned, OwnRuntime
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.profiles.planning.answers.deployment import Deployment, DeploymentOptions, deploy
from nemotrt.profiles.planning.memory.capacity import GIB

MIN_CHUNK_TOKENS = 128


def resolve_limits(
    checkpoint: Checkpoint,
    spec: BuildSpec,
    precision: Precision,
    given: GivenLimits,
    *,
    say: Callable[[str], None] = lambda note: None,
) -> BuildSpec:
    """Return `spec` with planned limits in the place of those that were not given.

    A backend that the planner knows not keeps what `spec` has. `say` is told what was planned, and
    what was given and does not fit.

    Raises:
        NoFeasiblePlanError: not one sequence of that length fits the GPU.
    """
    backend = registry.find(spec.backend)
    how = backend.planning(checked_options(backend, spec.options))
    if spec.gpu is None or isinstance(how, NotPlanned):
        return dataclasses.replace(spec, limits=given.over(spec.limits))
    if isinstance(how, OwnRuntime):
        limits = plan_limits(checkpoint, spec.gpu, precision, given, how.num_sides)
        if lack := missing_bytes(checkpoint, spec.gpu, precision, limits, how.num_sides):
            many = f"{limits.max_batch_size} sequences of {limits.max_seq_len} tokens"
            say(f"Warning: {many} need {lack / GIB:.1f} GiB more than {spec.gpu} has.")
    else:
        limits = planned_limits(checkpoint, how, spec.gpu, precision, given)
    if given.max_batch_size is None:
        many = f"{limits.max_batch_size} sequences of {limits.max_seq_len} tokens"
        if isinstance(how, ForeignRuntime) and how.takes_whole_prompts:
            many += f", prompts of {limits.chunk_tokens} at most,"
        say(f"Planned, not measured: {many} fit {spec.gpu}; --max-batch-size sets another number.")
    return dataclasses.replace(spec, limits=limits)


def planned_limits(
    checkpoint: Checkpoint,
    runtime: ForeignRuntime,
    gpu: str,
    precision: Precision,
    given: GivenLimits,
) -> Limits:
    """Return how many sequences the planner sees fit, at what length, and the prompt chunk.

    Where prompts are taken whole the chunk is the longest prompt, which leaves a token to be
    generated. The lengths are the planner's own load (8k in, 16k out), at most what the model was
    trained for.

    Args:
        checkpoint: the model.
        runtime: that will run the engine.
        gpu: a known GPU.
        precision: of the linears.
        given: limits that are not to be planned.

    Raises:
        NoFeasiblePlanError: not one sequence of that length fits.
    """
    options = DeploymentOptions(
        model=str(checkpoint.path / "config.json"),
        gpu=gpu,
        precision=precision,
        engine=runtime.engine,
        kv_dtype=_kv_type(checkpoint, precision),
        ssm_dtype=NumberFormat.BF16 if runtime.has_16_bit_state else NumberFormat.FP32,
        tp=runtime.tp_size,
    )
    longest = checkpoint.config.max_position_embeddings
    seq_len = given.max_seq_len or min(options.isl + options.osl, longest)
    if runtime.takes_whole_prompts:
        prompt = given.chunk_tokens or min(options.isl, max(seq_len - 1, 1))
        options = options.at(max_num_tokens=prompt)
    osl = max(seq_len * 2 // 3, 1)
    deployment = deploy(options.at(isl=max(seq_len - osl, 1), osl=osl))
    batch_size = given.max_batch_size or _max_batch_size(deployment, runtime)
    if runtime.takes_whole_prompts:
        return Limits(batch_size, seq_len, deployment.max_num_tokens)
    chunk = max(deployment.max_num_tokens - batch_size, MIN_CHUNK_TOKENS)
    return given.over(Limits(batch_size, seq_len, min(chunk, seq_len)))


def _max_batch_size(deployment: Deployment, runtime: ForeignRuntime) -> int:
    """Return how many sequences fit; at least one, or NoFeasiblePlanError."""
    fitting = deployment.max_batch_size()
    if not runtime.has_all_prompts_at_once:
        return max(math.floor(runtime.free_memory_share * fitting), 1)
    fit, prompt = deployment.fit, deployment.max_num_tokens
    for batch_size in range(fitting, 1, -1):
        together = dataclasses.replace(fit, max_num_tokens=batch_size * prompt)
        if together.holds(batch_size, deployment.planned_tokens):
            return batch_size
    return 1


def _kv_type(checkpoint: Checkpoint, precision: Precision) -> NumberFormat:
    """Return how the KV cache will be stored: FP8 where the checkpoint and the GPU have it."""
    has_fp8 = precision.arithmetic is NumberFormat.FP8
    is_fp8 = checkpoint.quant.kv_cache_algo == "FP8" and has_fp8
    return NumberFormat.FP8 if is_fp8 else NumberFormat.BF16
