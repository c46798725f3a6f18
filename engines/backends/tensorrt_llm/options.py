"""What a user may choose of a TensorRT-LLM bundle, and which precision it has on which GPU."""

from dataclasses import dataclass

from nemotrt.commandline import option
from nemotrt.engines.backends.protocol.compute_capability import has_fp8
from nemotrt.engines.backends.protocol.options import tp_size
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ConfigError

PRECISIONS = (Precision.BF16, Precision.INT8_WO, Precision.FP8, Precision.FP8_DYNAMIC)


@dataclass(frozen=True, slots=True)
class TensorRTLLMOptions:
    """`tp_size` GPUs share the model; `is_code_trusted` runs the checkpoint's own Python code."""

    tp_size: int = tp_size()
    is_code_trusted: bool = option(
        False,
        "let it import the checkpoint's own Python code, as 1.2 needs.",
        "--trust-remote-code",
    )


def check_gpu(compute_capability: str, precision: Precision) -> None:
    """Raise ConfigError unless TensorRT-LLM serves that precision on that GPU.

    Source: docs/quantization.md, what the loaders take.
    """
    if precision is Precision.INT8_SQ:
        raise ConfigError(
            "TensorRT-LLM's PyTorch backend has no INT8 W8A8 linears; use a checkpoint in int8-wo, "
            "or --backend tensorrt, which runs int8-sq."
        )
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise ConfigError(f"backend tensorrt-llm has no precision {precision}; it has {names}.")
    if precision.arithmetic is NumberFormat.FP8 and not has_fp8(compute_capability):
        raise ConfigError(
            f"compute capability {compute_capability} has no FP8 arithmetic; "
            "use a checkpoint in int8-wo or bf16."
        )
