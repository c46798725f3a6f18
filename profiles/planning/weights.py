"""The bytes of a model's weights, tensor by tensor."""

import math

from nemotrt.engines.model_config import ModelConfig
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensor_names import expected_shapes, linear_names
from nemotrt.profiles.planning.number_format import PER_CHANNEL_SCALES, other_type
from nemotrt.profiles.planning.operators import Formats

SCALE_BYTES = 4  # float32


def num_parameters(model: ModelConfig) -> int:
    """Return the number of weights."""
    return sum(math.prod(shape) for shape in expected_shapes(model).values())


def weights_bytes(model: ModelConfig, formats: Formats) -> int:
    """Return the bytes of all weights: linears and perhaps the head quantized, the others not.

    Source: ModelOpt's unified layout, which leaves lm_head and the embeddings in 16 bits.
    """
    precision, linears = formats.precision, set(linear_names(model))
    total = 0
    for name, shape in expected_shapes(model).items():
        if name not in linears:
            is_head = name.startswith("lm_head")
            stored = formats.head if is_head else other_type(precision)
            total += math.prod(shape) * stored.num_bytes
            continue
        total += math.prod(shape) * formats.linear.num_bytes
        if precision in PER_CHANNEL_SCALES:
            total += shape[0] * SCALE_BYTES
        elif precision is Precision.FP8:
            total += 2 * SCALE_BYTES  # weight_scale and input_scale
    return total
