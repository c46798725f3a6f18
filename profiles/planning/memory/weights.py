"""The bytes of a model's weights: what a checkpoint stores, or what a precision makes of it."""

import math
from functools import cache

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import Granularity
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.profiles.planning.sources.stored_weights import expert_costs, linear_layers
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.linears import expert_bytes, linears

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
    experts = expert_costs(model)
    num_others = num_parameters(model) - sum(cost.products for cost in inside)
    num_others -= sum(cost.weights for cost in experts)
    total = sum(part.num_bytes for part in linears(model, formats)) + expert_bytes(model, formats)
    if not model.tie_word_embeddings:
        num_head = model.vocab_size * model.hidden_size
        num_others -= num_head
        total += formats.head_bytes(num_head)
    total += num_others * formats.precision.floats.num_bytes
    if formats.stored is None:
        num_linears = len(inside) + sum(2 * cost.num_experts for cost in experts)
        num_channels = sum(cost.writes for cost in inside)
        if model.moe is not None:  # an expert's rows: those of up_proj, and as wide as it reads
            rows = model.moe.intermediate_size
            num_channels += sum(cost.num_experts * (rows + cost.writes) for cost in experts)
        total += _scale_bytes(formats, num_linears, num_channels)
    return round(total)


def _scale_bytes(formats: Formats, num_linears: int, num_channels: int) -> int:
    """Return the bytes of the scales that ModelOpt writes beside linears."""
    granularity = formats.precision.weights.granularity
    if granularity is Granularity.CHANNEL:
        return num_channels * SCALE_BYTES
    is_static = granularity is Granularity.TENSOR
    return num_linears * 2 * SCALE_BYTES if is_static else 0  # weight_scale and input_scale
