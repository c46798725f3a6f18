"""The limits of an engine where the user gives none: what the planner says fits the GPU."""

import dataclasses
import math
from collections.abc import Callable

from nemotrt.build.engine_builder import BuildSpec
from nemotrt.build.given_limits import GivenLimits
from nemotrt.build.plan_limits import missing_bytes, plan_limits
from nemotrt.engines.checkpoint import Checkpoint
from nemotrt.engines.engine import Limits
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensorrt.device_state import SIDES
from nemotrt.engines.tensorrt_llm.llm_args import FREE_GPU_MEMORY_FRACTION
from nemotrt.profiles.planning.capacity import GIB
from nemotrt.profiles.planning.deployment import Deployment, DeploymentOptions, deploy
from nemotrt.profiles.planning.number_format import StoredType

# What each backend adds to the hardware, in the planner's words, and what it says of memory: the
# share of what the weights leave that its caches may take.
PLANNED_AS = {
    "tensorrt-llm": ("tensorrt-llm", FREE_GPU_MEMORY_FRACTION),
    "tensorrt-llm-1.2": ("tensorrt-llm", FREE_GPU_MEMORY_FRACTION),
    "edge-llm": ("nemotrt", 1.0),
}
SIXTEEN_BIT_STATE = ("tensorrt-llm-1.2", "edge-llm")
# These take a prompt whole, so the chunk is the longest prompt. 1.2 packs what runs in a step;
# Edge-LLM's context profile has a longest prompt for every sequence. Source: its developer guide,
# Engine Builder (0.4.0; not seen for 0.11).
WHOLE_PROMPTS = ("tensorrt-llm-1.2", "edge-llm")
ALL_PROMPTS_AT_ONCE = ("edge-llm",)
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
    if spec.gpu is None or spec.backend not in ("tensorrt", *PLANNED_AS):
        return dataclasses.replace(spec, limits=given.over(spec.limits))
    if spec.backend == "tensorrt":
        num_sides = 1 if spec.has_plugins else SIDES
        limits = plan_limits(checkpoint, spec.gpu, precision, given, num_sides)
        if lack := missing_bytes(checkpoint, spec.gpu, precision, limits, num_sides):
            many = f"{limits.max_batch_size} sequences of {limits.max_seq_len} tokens"
            say(f"Warning: {many} need {lack / GIB:.1f} GiB more than {spec.gpu} has.")
    else:
        limits = planned_limits(
            checkpoint, spec.backend, spec.gpu, precision, given, tp_size=spec.tp_size
        )
    if given.max_batch_size is None:
        many = f"{limits.max_batch_size} sequences of {limits.max_seq_len} tokens"
        if spec.backend in WHOLE_PROMPTS:
            many += f", prompts of {limits.chunk_tokens} at most,"
        say(f"Planned, not measured: {many} fit {spec.gpu}; --max-batch-size sets another number.")
    return dataclasses.replace(spec, limits=limits)


def planned_limits(
    checkpoint: Checkpoint,
    backend: str,
    gpu: str,
    precision: Precision,
    given: GivenLimits,
    *,
    tp_size: int = 1,
) -> Limits:
    """Return how many sequences the planner sees fit, at what length, and the prompt chunk.

    For WHOLE_PROMPTS the chunk is the longest prompt, which leaves a token to be generated. The
    lengths are the planner's own load (8k in, 16k out), at most what the model was trained for.

    Args:
        checkpoint: the model.
        backend: a key of PLANNED_AS.
        gpu: a known GPU.
        precision: of the linears.
        given: limits that are not to be planned.
        tp_size: GPUs that share the model.

    Raises:
        NoFeasiblePlanError: not one sequence of that length fits.
    """
    engine, _ = PLANNED_AS[backend]
    options = DeploymentOptions(
        model=str(checkpoint.path / "config.json"),
        gpu=gpu,
        precision=precision,
        engine=engine,
        kv_dtype=_kv_type(checkpoint, precision),
        ssm_dtype=StoredType.BF16 if backend in SIXTEEN_BIT_STATE else StoredType.FP32,
        tp=tp_size,
    )
    longest = checkpoint.config.max_position_embeddings
    seq_len = given.max_seq_len or min(options.isl + options.osl, longest)
    if backend in WHOLE_PROMPTS:
        prompt = given.chunk_tokens or min(options.isl, max(seq_len - 1, 1))
        options = options.at(max_num_tokens=prompt)
    osl = max(seq_len * 2 // 3, 1)
    deployment = deploy(options.at(isl=max(seq_len - osl, 1), osl=osl))
    batch_size = given.max_batch_size or _max_batch_size(deployment, backend)
    if backend in WHOLE_PROMPTS:
        return Limits(batch_size, seq_len, deployment.max_num_tokens)
    chunk = max(deployment.max_num_tokens - batch_size, MIN_CHUNK_TOKENS)
    return given.over(Limits(batch_size, seq_len, min(chunk, seq_len)))


def _max_batch_size(deployment: Deployment, backend: str) -> int:
    """Return how many sequences fit; at least one, or NoFeasiblePlanError."""
    _, share = PLANNED_AS[backend]
    fitting = deployment.max_batch_size()
    if backend not in ALL_PROMPTS_AT_ONCE:
        return max(math.floor(share * fitting), 1)
    fit, prompt = deployment.fit, deployment.max_num_tokens
    for batch_size in range(fitting, 1, -1):
        together = dataclasses.replace(fit, max_num_tokens=batch_size * prompt)
        if together.holds(batch_size, deployment.planned_tokens):
            return batch_size
    return 1


def _kv_type(checkpoint: Checkpoint, precision: Precision) -> StoredType:
    """Return how the KV cache will be stored: FP8 where the checkpoint and the GPU have it."""
    has_fp8 = precision in (Precision.FP8, Precision.FP8_DYNAMIC)
    is_fp8 = checkpoint.quant.kv_cache_algo == "FP8" and has_fp8
    return StoredType.FP8 if is_fp8 else StoredType.BF16
