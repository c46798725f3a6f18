"""What a user may choose of a TensorRT-LLM 1.2 checkpoint."""

from dataclasses import dataclass

from nemotrt.engines.backends.protocol.options import tp_size


@dataclass(frozen=True, slots=True)
class TensorRTLLM12Options:
    """`tp_size` GPUs share the model."""

    tp_size: int = tp_size()
