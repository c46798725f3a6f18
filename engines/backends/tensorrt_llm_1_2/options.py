"""What a user may choose of a TensorRT-LLM 1.2 checkpoint; which precision has which GPU."""

from dataclasses import dataclass

from nemotrt.engines.backends.protocol.compute_capability import has_fp8
from nemotrt.engines.backends.protocol.options import tp_size
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError

CAPABILITIES = ("8.0", "8.6", "8.9", "9.0")
PRECISIONS = (Precision.BF16, Precision.INT8_WO, Precision.INT8_SQ, Precision.FP8)


@dataclass(frozen=True, slots=True)
class TensorRTLLM12Options:
    """`tp_size` GPUs share the model."""

    tp_size: int = tp_size()


def check_gpu(compute_capability: str, precision: Precision) -> None:
    """Raise ConfigError unless 1.2 has that precision on that GPU, for this model."""
    if compute_capability not in CAPABILITIES:
        raise ConfigError(
            f"backend tensorrt-llm-1.2 is for compute capability {', '.join(CAPABILITIES)}; got "
            f"{compute_capability}. Use --backend tensorrt-llm."
        )
    if precision is Precision.FP8_DYNAMIC:
        raise ConfigError(
            "TensorRT-LLM 1.2 has no FP8 scales per token for Mamba's linears; use fp8."
        )
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise ConfigError(f"backend tensorrt-llm-1.2 has no precision {precision}; it has {names}.")
    if precision is Precision.FP8 and not has_fp8(compute_capability):
        raise ConfigError(
            f"compute capability {compute_capability} has no FP8 arithmetic; "
            "use a checkpoint in int8-sq, int8-wo or bf16."
        )
