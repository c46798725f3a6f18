"""How many bytes a number takes in each place, and which arithmetic its products run in."""

from enum import StrEnum
from typing import cast

from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import Arithmetic, GpuProfile


class StoredType(StrEnum):
    """The number formats of weights, caches and states."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"
    INT4 = "int4"

    @property
    def num_bits(self) -> int:
        """Bits of one element."""
        return NUM_BITS[self]

    @property
    def num_bytes(self) -> int:
        """Bytes of one element; two of int4 share one, so it has no such number."""
        if self.num_bits % 8:
            raise ValueError(f"{self} is no whole number of bytes")
        return self.num_bits // 8


NUM_BITS = {
    StoredType.FP32: 32,
    StoredType.BF16: 16,
    StoredType.FP16: 16,
    StoredType.INT8: 8,
    StoredType.FP8: 8,
    StoredType.INT4: 4,
}


class FilePrecision(StrEnum):
    """Precisions that a checkpoint may have and no engine of ours builds."""

    INT4_WO = "int4-wo"  # int4 weights in groups of inputs, 16-bit activations (AWQ, GPTQ)


PlanPrecision = Precision | FilePrecision

# How the linears inside the blocks are stored, and the arithmetic of their products.
LINEAR_WEIGHTS: dict[PlanPrecision, StoredType] = {
    Precision.FP32: StoredType.FP32,
    Precision.BF16: StoredType.BF16,
    Precision.INT8_WO: StoredType.INT8,
    Precision.INT8_SQ: StoredType.INT8,
    Precision.FP8: StoredType.FP8,
    Precision.FP8_DYNAMIC: StoredType.FP8,
    FilePrecision.INT4_WO: StoredType.INT4,
}
LINEAR_ARITHMETIC: dict[PlanPrecision, StoredType] = {
    **LINEAR_WEIGHTS,
    Precision.INT8_WO: StoredType.BF16,  # weights are widened in the kernel
    FilePrecision.INT4_WO: StoredType.BF16,
}
# One float32 scale for each output channel; FP8 with static scales has one for the tensor.
PER_CHANNEL_SCALES = (Precision.INT8_WO, Precision.INT8_SQ, Precision.FP8_DYNAMIC)


def other_type(precision: PlanPrecision) -> StoredType:
    """Return the format of embeddings, head, norms and activations."""
    return StoredType.FP32 if precision is Precision.FP32 else StoredType.BF16


def default_kv_type(precision: PlanPrecision, is_fp8_kv_default: bool) -> StoredType:
    """Return the KV cache's format: FP8 beside FP8 weights where the engine does so, else 16-bit.

    Float32 weights keep a float32 cache.
    """
    if is_fp8_kv_default and precision in (Precision.FP8, Precision.FP8_DYNAMIC):
        return StoredType.FP8
    return other_type(precision)


def peak_tflops(gpu: GpuProfile, arithmetic: StoredType) -> float:
    """Return the datasheet's dense rate of one arithmetic.

    Raises:
        ConfigError: the device has no such arithmetic, or nobody sourced its rate.
    """
    rate = gpu.datasheet.tflops.get(cast("Arithmetic", arithmetic.value))
    if rate is None:
        known = ", ".join(sorted(gpu.datasheet.tflops))
        raise ConfigError(f"{gpu.name} has no {arithmetic} rate in its profile; it has: {known}.")
    return rate


def check_precision(gpu: GpuProfile, precision: PlanPrecision) -> None:
    """Raise unless the device multiplies in this precision.

    Raises:
        ConfigError: naming the reason and the precisions to choose instead.
    """
    if LINEAR_ARITHMETIC[precision].value in gpu.datasheet.tflops:
        return
    legal = [p.value for p in Precision if LINEAR_ARITHMETIC[p].value in gpu.datasheet.tflops]
    why = (
        f"compute capability {gpu.compute_capability} has no FP8 tensor cores (8.9 is the first)"
        if LINEAR_ARITHMETIC[precision] is StoredType.FP8
        else f"its profile has no {LINEAR_ARITHMETIC[precision]} rate"
    )
    raise ConfigError(f"{gpu.name} cannot run {precision}: {why}; choose {', '.join(legal)}.")
