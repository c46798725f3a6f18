"""What a user may choose of a TensorRT-LLM bundle."""

from dataclasses import dataclass, field

from nemotrt.engines.backends.protocol.options import TP_SIZE, flag


@dataclass(frozen=True, slots=True)
class TensorRTLLMOptions:
    """`tp_size` GPUs share the model; `is_code_trusted` runs the checkpoint's own Python code."""

    tp_size: int = field(default=1, metadata=TP_SIZE)
    is_code_trusted: bool = field(
        default=False,
        metadata=flag(
            "--trust-remote-code", "let it import the checkpoint's own Python code, as 1.2 needs."
        ),
    )
