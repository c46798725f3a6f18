"""What TensorRT-LLM 1.2 builds this model for, and why not the rest."""

from nemotrt.engines.backends.protocol.options import TP_SIZES
from nemotrt.engines.backends.tensorrt_llm_1_2.mixed_gemm import row_alignment
from nemotrt.engines.backends.tensorrt_llm_1_2.options import check_gpu
from nemotrt.engines.backends.tensorrt_llm_1_2.tensor_parallel import (
    check_divides,
    sections_of_in_proj,
)
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.model_config import Activation
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import linear_names
from nemotrt.errors import ConfigError

# Source: TensorRT-LLM 1.2 kernels/selectiveScan: chunk 128 or 256, state a multiple of 16 (64 in a
# prompt); layers/ssm.py: the gated norm's epsilon, and a padding of in_proj that its quantized
# linears don't know; models/convert_utils.py: weight-only codes every linear at loading, by name.
MIN_STATE_SIZE = 64
PADDED_HEADS = 8
GATED_NORM_EPS = 1e-5
FP8_ALIGNMENT = 16  # columns of a product, of cuBLASLt's FP8 kernels


def check(checkpoint: Checkpoint, compute_capability: str, precision: Precision, tp: int) -> None:
    """Raise ConfigError unless 1.2 builds the checkpoint for `tp` of those GPUs."""
    check_gpu(compute_capability, precision)
    _check_model(checkpoint)
    if precision is Precision.INT8_WO:
        _check_all_quantized(checkpoint)
    legal = tp_sizes(checkpoint, compute_capability, precision)
    if tp not in legal:
        why = "; ".join(_faults(checkpoint, compute_capability, precision, tp)) or "out of range"
        sizes = ", ".join(map(str, legal)) or "none"
        raise ConfigError(
            f"--tp-size for this model in {precision} on {compute_capability} may be: {sizes}; "
            f"got {tp}: {why}."
        )


def tp_sizes(
    checkpoint: Checkpoint, compute_capability: str, precision: Precision
) -> tuple[int, ...]:
    """Return how many GPUs may share the model in that precision."""
    return tuple(
        size for size in TP_SIZES if not _faults(checkpoint, compute_capability, precision, size)
    )


def _check_model(checkpoint: Checkpoint) -> None:
    """Raise ConfigError unless the plugins take the model's shapes."""
    config = checkpoint.config
    mamba = config.mamba
    if mamba is None or config.activation is not Activation.RELU2:
        raise ConfigError(
            "backend tensorrt-llm-1.2 is for nemotron_h; 1.2 has classes of its own for others."
        )
    if not config.num_attention_layers:
        raise ConfigError("1.2 has no place for recurrent layers without any attention.")
    if mamba.state_size < MIN_STATE_SIZE or mamba.state_size % 16:
        raise ConfigError(
            f"1.2's scan takes states of {MIN_STATE_SIZE} or more, in sixteens; the model has "
            f"{mamba.state_size}."
        )
    if mamba.chunk_size not in (128, 256):
        raise ConfigError(f"1.2's scan has chunks of 128 or 256; the model has {mamba.chunk_size}.")
    if config.norm_eps != GATED_NORM_EPS:
        raise ConfigError(
            f"1.2's Mamba-2 has a norm of epsilon {GATED_NORM_EPS}; the model's is "
            f"{config.norm_eps}."
        )
    if mamba.is_dt_limited:
        raise ConfigError(
            "1.2's scan does not clamp the time step; the model's config asks for it."
        )


def _check_all_quantized(checkpoint: Checkpoint) -> None:
    """Raise ConfigError for a linear that 1.2 would code by itself, against its own list."""
    floats = [name for name in linear_names(checkpoint.config) if checkpoint[name].is_float]
    if floats and checkpoint.quant.precision is Precision.INT8_WO:
        raise ConfigError(
            f"{floats[0]} and {len(floats) - 1} more are not quantized, and 1.2 would do that when "
            "it loads int8-wo; use a recipe that quantizes every linear."
        )


def _faults(
    checkpoint: Checkpoint, compute_capability: str, precision: Precision, size: int
) -> list[str]:
    """Return what of the model does not divide among `size` GPUs, as sentences."""
    config = checkpoint.config
    faults = [f"{what} do not divide by {size}" for what in check_divides(config, size)]
    if faults or precision is Precision.BF16:
        return faults
    mamba = config.mamba
    assert mamba is not None  # _check_model()
    if mamba.num_heads // size % PADDED_HEADS:
        faults.append(f"{mamba.num_heads // size} Mamba heads a GPU are no multiple of 8")
    inputs = {config.hidden_size, config.intermediate_size // size, mamba.inner_size // size}
    inputs |= {config.q_size // size} if config.num_attention_layers else set()
    outputs = {sum(sections_of_in_proj(mamba)) // size, config.hidden_size}
    step = FP8_ALIGNMENT if precision is Precision.FP8 else 1
    if precision is Precision.INT8_WO:
        step = row_alignment(compute_capability)
        faults += [f"{n} output channels are no multiple of 8" for n in outputs if n % 8]
    faults += [f"{n} input channels a GPU are no multiple of {step}" for n in inputs if n % step]
    return sorted(faults)
