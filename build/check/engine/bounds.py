"""How far an engine's logits may be from the reference's, as a part of a row's length, and why."""

import math

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import Precision

ROUNDINGS = 6  # of a layer to bfloat16: norm, both sides of a linear twice, the residual sum
CPU_FLOAT = 1e-4
CPU_CODES = 5e-3
EIGHT_BITS = 5e-2
FOUR_BITS = 0.25
WHY_CPU_FLOAT = "the same weights, float32 sums in another order; 1e-6 is usual for tiny models"
WHY_CPU_CODES = (
    "inputs of linears with codes are rounded to 14 bits; states and caches may be smaller"
)
WHY_EIGHT_BITS = "the engine itself rounds weights or inputs to 8 bits; 0.02 was seen"
WHY_FOUR_BITS = "the engine itself rounds weights to 4 bits; 0.05 was seen"
WHY_GPU = "a bfloat16 rounding is 2^-8, some six a layer, adding up as independent errors do"
WHY_GPU_CODES = "as in bfloat16, twice: a rounded input may fall on the other side of a step"


def bound(manifest: Manifest, stored: Precision | None) -> tuple[float, str]:
    """Return the bound for an engine of a checkpoint `stored` in a precision, and its source."""
    precision, options = manifest.precision, manifest.options
    backend = registry.find(manifest.backend)
    if backend.is_cpu:
        if precision.weights.is_grouped and precision is not stored:
            return FOUR_BITS, WHY_FOUR_BITS
        # Inputs of int4 are rounded to 8 bits by every CPU backend.
        rounds_inputs = backend.rounds_inputs or precision.weights.is_grouped
        rounds_itself = precision is not stored or rounds_inputs
        if precision.is_quantized and rounds_itself:
            return EIGHT_BITS, WHY_EIGHT_BITS
        has_small_state = any(
            options.get(name, "float32") != "float32" for name in ("ssm_state", "kv_cache")
        )
        if precision.is_quantized or has_small_state:
            return CPU_CODES, WHY_CPU_CODES
        return CPU_FLOAT, WHY_CPU_FLOAT
    layers = len(str(manifest.model["layers"]))
    one = 2**-8 * math.sqrt(ROUNDINGS * layers)
    return (2 * one, WHY_GPU_CODES) if precision.inputs.is_quantized else (one, WHY_GPU)
