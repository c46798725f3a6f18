"""The limits of a TensorRT plan: as many sequences as fit beside what its runtime allocates."""

from nemotrt.build.limit_options import GivenLimits
from nemotrt.build.plan_memory import device_memory
from nemotrt.engines.backends.tensorrt.run.device_state import SIDES
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.planning.answers.deployment import Deployment, DeploymentOptions, deploy
from nemotrt.profiles.planning.memory.capacity import GIB

CHUNK_TOKENS = 512  # of a prompt: the scan's matrices grow with its square
# More slots than this are never planned, whatever fits: each is memory from the start.
# Source: the default max_num_seqs of vLLM's OpenAI server.
MAX_SLOTS = 256


def plan_limits(
    checkpoint: Checkpoint,
    gpu: str,
    precision: Precision,
    given: GivenLimits,
    num_sides: int = SIDES,
) -> Limits:
    """Return limits that fit the GPU: the planner's lengths, and as many sequences as fit.

    Args:
        checkpoint: of the model.
        gpu: a known name.
        precision: of the linears; the cache is bfloat16.
        given: limits that are fixed already.
        num_sides: copies of a sequence's states; 1 where they are updated in place.

    Raises:
        NoFeasiblePlanError: not one sequence fits.
    """
    planned = plan_deployment(checkpoint, gpu, precision)
    longest = min(planned.isl + planned.osl, checkpoint.config.max_position_embeddings)
    one = given.over(Limits(1, longest, min(CHUNK_TOKENS, longest)))
    if given.max_batch_size is not None:
        return one
    fit = planned.fit
    usable = fit.budget.usable_bytes
    for batch in range(MAX_SLOTS, 0, -1):
        limits = Limits(batch, one.max_seq_len, one.chunk_tokens)
        if device_memory(fit, limits, num_sides).total_bytes <= usable:
            return limits
    raise NoFeasiblePlanError(
        f"one sequence of {one.max_seq_len} tokens needs "
        f"{device_memory(fit, one, num_sides).total_bytes / GIB:.1f} GiB on {planned.gpu.name}, "
        f"which has {usable / GIB:.1f} GiB for an engine: choose a smaller --max-seq-len or "
        "--chunk-tokens, a quantized checkpoint, or a larger GPU."
    )


def missing_bytes(
    checkpoint: Checkpoint,
    gpu: str,
    precision: Precision,
    limits: Limits,
    num_sides: int = SIDES,
) -> int:
    """Return the bytes that an engine needs beyond what the GPU has for it; 0 where it fits."""
    fit = plan_deployment(checkpoint, gpu, precision).fit
    return max(device_memory(fit, limits, num_sides).total_bytes - fit.budget.usable_bytes, 0)


def plan_deployment(checkpoint: Checkpoint, gpu: str, precision: Precision) -> Deployment:
    """Return what the planner plans by default, with the cache as a TensorRT plan has it."""
    options = DeploymentOptions(str(checkpoint.path), gpu, precision, kv_dtype=NumberFormat.BF16)
    return deploy(options)
