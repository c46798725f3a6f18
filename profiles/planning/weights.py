"""The bytes of a model's weights, tensor by tensor."""

import math

from nemotrt.engines.model_config import ModelConfig
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensor_names import expected_shapes, linear_names
from nemotrt.profiles.planning.number_format import (
    LINEAR_WEIGHTS,
    PER_CHANNEL_SCALES,
    StoredType,
    other_type,
)

SCALE_BYTES = 4  # float32


def num_parameters(model: ModelConfig) -> int:
    """Return the number of weights."""
    return sum(math.prod(shape) for shape in expected_shapes(model).values())


def weights_bytes(
    model: ModelConfig,
    precision: Precision,
    widened: StoredType | None = None,
    head: StoredType | None = None,
) -> int:
    """Return the bytes of all weights: linears quantized, embeddings, head and norms not.

    `widened` is what an engine makes of 16-bit linears when it loads them; `head` is what it makes
    of the head, None what the checkpoint has.
    Source: ModelOpt's unified layout, which leaves lm_head and the embeddings in 16 bits.
    """
    linears = set(linear_names(model))
    linear = LINEAR_WEIGHTS[precision]
    if widened and linear is StoredType.BF16:
        linear = widened
    total = 0
    for name, shape in expected_shapes(model).items():
        if name not in linears:
            stored = head if head and name.startswith("lm_head") else other_type(precision)
            total += math.prod(shape) * stored.num_bytes
            continue
        total += math.prod(shape) * linear.num_bytes
        if precision in PER_CHANNEL_SCALES:
            total += shape[0] * SCALE_BYTES
        elif precision is Precision.FP8:
            total += 2 * SCALE_BYTES  # weight_scale and input_scale
    return total
