"""The bytes of a model's weights: what a checkpoint stores, or what a precision makes of it."""

import math
from functools import cache

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import Granularity
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.profiles.planning.sources.stored_weights import linear_layers
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.linears import linears

SCALE_BYTES = 4  # float32


@cache
def num_parameters(model: ModelConfig) -> int:
    """Return the number of weights."""
    return sum(math.prod(shape) for shape in expected_shapes(model).values())


def weights_bytes(model: ModelConfig, formats: Formats) -> int:
    """Return the bytes of all weights: linears and perhaps the head quantized, the others not.

    Source: ModelOpt's unified layout, which leaves lm_head and the embeddings in 16 bits.
    """
    inside = [
        cost for layers in linear_layers(model).values() for layer in layers for cost in layer
    ]
    num_others = num_parameters(model) - sum(cost.products for cost in inside)
    total = sum(part.num_bytes for part in linears(model, formats))
    if not model.tie_word_embeddings:
        num_head = model.vocab_size * model.hidden_size
        num_others -= num_head
        total += formats.head_bytes(num_head)
    total += num_others * formats.precision.floats.num_bytes
    if formats.stored is None:
        total += _scale_bytes(formats, len(inside), sum(cost.writes for cost in inside))
    return round(total)


def _scale_bytes(formats: Formats, num_linears: int, num_channels: int) -> int:
    """Return the bytes of the scales that ModelOpt writes beside linears."""
    granularity = formats.precision.weights.granularity
    if granularity is Granularity.CHANNEL:
        return num_channels * SCALE_BYTES
    is_static = granularity is Granularity.TENSOR
    return num_linears * 2 * SCALE_BYTES if is_static else 0  # weight_scale and input_scale
