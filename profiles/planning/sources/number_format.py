"""Which formats a GPU multiplies in, and which one a KV cache gets by default."""

from typing import cast

from nemotrt.engines.backends.protocol.compute_capability import FIRST_FP8
from nemotrt.engines.model.numerics import BUILT, NumberFormat, Precision
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import Arithmetic, GpuProfile


def default_kv_type(precision: Precision, is_fp8_kv_default: bool) -> NumberFormat:
    """Return the KV cache's format: FP8 beside FP8 weights where the engine does so, else 16-bit.

    Float32 weights keep a float32 cache.
    """
    if is_fp8_kv_default and precision.weights.format is NumberFormat.FP8:
        return NumberFormat.FP8
    return precision.floats


def peak_tflops(gpu: GpuProfile, arithmetic: NumberFormat) -> float:
    """Return the datasheet's dense rate of one arithmetic.

    Raises:
        ConfigError: the device has no such arithmetic, or nobody sourced its rate.
    """
    rate = gpu.datasheet.tflops.get(cast("Arithmetic", arithmetic.value))
    if rate is None:
        known = ", ".join(sorted(gpu.datasheet.tflops))
        raise ConfigError(f"{gpu.name} has no {arithmetic} rate in its profile; it has: {known}.")
    return rate


def check_precision(gpu: GpuProfile, precision: Precision) -> None:
    """Raise unless the device multiplies in this precision.

    Raises:
        ConfigError: naming the reason and the precisions to choose instead.
    """
    rates = gpu.datasheet.tflops
    if precision.arithmetic in rates:
        return
    why = (
        f"compute capability {gpu.compute_capability} has no FP8 tensor cores "
        f"({FIRST_FP8} is the first)"
        if precision.arithmetic is NumberFormat.FP8
        else f"its profile has no {precision.arithmetic} rate"
    )
    legal = [item for item in BUILT if item.arithmetic in rates]
    raise ConfigError(f"{gpu.name} cannot run {precision}: {why}; choose {', '.join(legal)}.")
