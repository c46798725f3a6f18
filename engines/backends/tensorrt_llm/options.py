"""What a user may choose of a TensorRT-LLM bundle."""

from dataclasses import dataclass

from nemotrt.commandline import option
from nemotrt.engines.backends.protocol.options import tp_size


@dataclass(frozen=True, slots=True)
class TensorRTLLMOptions:
    """`tp_size` GPUs share the model; `is_code_trusted` runs the checkpoint's own Python code."""

    tp_size: int = tp_size()
    is_code_trusted: bool = option(
        False,
        "let it import the checkpoint's own Python code, as 1.2 needs.",
        "--trust-remote-code",
    )
