"""What a quantized checkpoint's weights take, by the operators that read them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from nemotrt.engines.model.model_config import LayerKind, ModelConfig
from nemotrt.engines.model.tensor_names import blocks, expected_shapes, model_names

# The linears that each operator reads: a kind of block, and the names of its weights in there.
PLACES = {
    "qkv_proj": (LayerKind.ATTENTION, ("q_proj", "k_proj", "v_proj")),
    "o_proj": (LayerKind.ATTENTION, ("o_proj",)),
    "mlp_up": (LayerKind.MLP, ("up_proj", "gate_proj")),
    "mlp_down": (LayerKind.MLP, ("down_proj",)),
    "mamba_in_proj": (LayerKind.MAMBA, ("in_proj",)),
    "mamba_out_proj": (LayerKind.MAMBA, ("out_proj",)),
}
SIXTEEN_BIT_BYTES = 2


@dataclass(frozen=True, slots=True)
class StoredLinears:
    """The layers that have an operator's linears as codes, and the bytes of those, scales too."""

    num_layers: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The quantized weights of a checkpoint; all that is not in here has 16 bits."""

    linears: Mapping[str, StoredLinears]  # by the names of PLACES
    head_bytes: int | None = None  # None: the head has 16 bits


def stored_weights(model: ModelConfig, num_bytes: Mapping[str, int]) -> StoredWeights:
    """Return the quantized weights by operator.

    Args:
        model: whose weights they are.
        num_bytes: of each quantized weight, by its name; a linear beside a quantized one that the
            same operator reads, and that is not named, counts 16 bits.
    """
    shapes = expected_shapes(model)
    found = {}
    for place, (kind, leaves) in PLACES.items():
        layers = [
            [name for leaf in leaves if (name := block.name(f"{leaf}.weight")) in shapes]
            for block in blocks(model)
            if block.kind is kind
        ]
        quantized = [names for names in layers if any(name in num_bytes for name in names)]
        total = sum(
            num_bytes.get(name, SIXTEEN_BIT_BYTES * math.prod(shapes[name]))
            for names in quantized
            for name in names
        )
        found[place] = StoredLinears(len(quantized), total)
    return StoredWeights(found, num_bytes.get(model_names(model).lm_head))
