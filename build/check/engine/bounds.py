"""How far an engine's logits may be from the reference's, as a part of a row's length, and why."""

import math

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.backends import registry

ROUNDINGS = 6  # of a layer to bfloat16: norm, both sides of a linear twice, the residual sum
CPU_FLOAT = 1e-4
CPU_CODES = 5e-3
WHY_CPU_FLOAT = "the same weights, float32 sums in another order; 1e-6 is usual for tiny models"
WHY_CPU_CODES = "inputs of linears with codes are rounded to 14 bits; states may be float16"
WHY_GPU = "a bfloat16 rounding is 2^-8, some six a layer, adding up as independent errors do"
WHY_GPU_CODES = "as in bfloat16, twice: a rounded input may fall on the other side of a step"


def bound(manifest: Manifest) -> tuple[float, str]:
    """Return the bound for an engine, and its source."""
    precision, options = manifest.precision, manifest.options
    if registry.find(manifest.backend).is_cpu:
        has_small_state = options.get("ssm_state", "float32") != "float32"
        if precision.is_quantized or has_small_state:
            return CPU_CODES, WHY_CPU_CODES
        return CPU_FLOAT, WHY_CPU_FLOAT
    layers = len(str(manifest.model["layers"]))
    one = 2**-8 * math.sqrt(ROUNDINGS * layers)
    return (2 * one, WHY_GPU_CODES) if precision.inputs.is_quantized else (one, WHY_GPU)
