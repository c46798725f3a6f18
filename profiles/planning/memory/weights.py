"""The bytes of a model's weights: what a checkpoint stores, or what a precision makes of it."""

import math

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import Granularity
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.linears import linears

SCALE_BYTES = 4  # float32


def num_parameters(model: ModelConfig) -> int:
    """Return the number of weights."""
    return sum(math.prod(shape) for shape in expected_shapes(model).values())


def weights_bytes(model: ModelConfig, formats: Formats) -> int:
    """Return the bytes of all weights: linears and perhaps the head quantized, the others not.

    Source: ModelOpt's unified layout, which leaves lm_head and the embeddings in 16 bits.
    """
    names, shapes, total = set(linear_names(model)), expected_shapes(model), 0.0
    for name, shape in shapes.items():
        if name in names:
            continue
        count = math.prod(shape)
        if name.startswith("lm_head"):
            total += formats.head_bytes(count)
        else:
            total += count * formats.precision.floats.num_bytes
    total += sum(part.num_bytes for part in linears(model, formats))
    if formats.stored is None:
        total += sum(scale_bytes(formats, shapes[name]) for name in names)
    return round(total)


def scale_bytes(formats: Formats, shape: tuple[int, ...]) -> int:
    """Return the bytes of the scales that ModelOpt writes beside one linear."""
    granularity = formats.precision.weights.granularity
    if granularity is Granularity.CHANNEL:
        return shape[0] * SCALE_BYTES
    is_static = granularity is Granularity.TENSOR
    return 2 * SCALE_BYTES if is_static else 0  # weight_scale and input_scale
