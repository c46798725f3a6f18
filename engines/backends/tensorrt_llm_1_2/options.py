"""What a user may choose of a TensorRT-LLM 1.2 checkpoint."""

from dataclasses import dataclass, field

from nemotrt.engines.backends.protocol.options import TP_SIZE


@dataclass(frozen=True, slots=True)
class TensorRTLLM12Options:
    """`tp_size` GPUs share the model."""

    tp_size: int = field(default=1, metadata=TP_SIZE)
