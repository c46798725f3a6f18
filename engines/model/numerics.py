"""The precisions that engines are built in, spelled as users give them."""

from enum import StrEnum


class Precision(StrEnum):
    """Weights and activations of the linears; everything else stays as the backend documents."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8_WO = "int8-wo"  # int8 weights per output channel, 16-bit activations (W8A16)
    INT8_SQ = "int8-sq"  # int8 weights and activations with SmoothQuant (W8A8)
    FP8 = "fp8"  # E4M3 weights and activations, static per-tensor scales
    FP8_DYNAMIC = "fp8-dynamic"  # E4M3, scales per channel (weights) and per token (activations)
