"""What a quantized checkpoint's weights take, by the operators that read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from nemotrt.engines.graph.cost import Cost, Kind, costs
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import model_names

# The operator that reads each linear; linears of one input and operator are fused. The order is a
# plan's. A linear that is not named here is an operator by itself.
OPERATORS = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "o_proj": "o_proj",
    "up_proj": "mlp_up",
    "gate_proj": "mlp_up",
    "down_proj": "mlp_down",
    "in_proj": "mamba_in_proj",
    "out_proj": "mamba_out_proj",
    "shared_experts.up_proj": "shared_up",
    "shared_experts.down_proj": "shared_down",
    "fc1_latent_proj": "latent_in",
    "fc2_latent_proj": "latent_out",
}
EXPERTS = "experts"
SIXTEEN_BIT_BYTES = 2


@dataclass(frozen=True, slots=True)
class StoredLinears:
    """The layers that have an operator's linears as codes, and the bytes of those, scales too."""

    num_layers: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The quantized weights of a checkpoint; all that is not in here has 16 bits."""

    linears: Mapping[str, StoredLinears]  # by operator
    head_bytes: int | None = None  # None: the head has 16 bits


@cache
def linear_layers(model: ModelConfig) -> Mapping[str, list[list[Cost]]]:
    """Return for each operator the linears that it reads, layer by layer."""
    found: dict[str, dict[tuple[int, ...], list[Cost]]] = {}
    for cost in costs(model):
        if cost.kind is Kind.LINEAR and not cost.is_last:
            leaf = _leaf(cost.weight)
            layers = found.setdefault(OPERATORS.get(leaf, leaf), {})
            layers.setdefault(cost.inputs, []).append(cost)
    order = dict.fromkeys((*OPERATORS.values(), *found))
    return {name: [*found[name].values()] for name in order if name in found}


def expert_costs(model: ModelConfig) -> list[Cost]:
    """Return the experts of each block that has some."""
    return [cost for cost in costs(model) if cost.kind is Kind.EXPERTS]


def _leaf(weight: str) -> str:
    """Return the name of a linear, with its parent's where it is a shared expert's."""
    module = weight.removesuffix(".weight")
    parent, _, leaf = module.rpartition(".")
    return f"shared_experts.{leaf}" if parent.endswith(".shared_experts") else leaf


def _experts(model: ModelConfig, num_bytes: Mapping[str, int]) -> StoredLinears:
    """Return the blocks with a quantized expert; of those, one that is not named counts 16 bits."""
    num_layers = total = 0
    for cost in expert_costs(model):
        codes = [size for name, size in num_bytes.items() if name.startswith(f"{cost.weight}.")]
        num_linears = 2 * cost.num_experts
        kept = (num_linears - len(codes)) * cost.weights // num_linears
        if codes:
            num_layers, total = num_layers + 1, total + sum(codes) + SIXTEEN_BIT_BYTES * kept
    return StoredLinears(num_layers, total)


def stored_weights(model: ModelConfig, num_bytes: Mapping[str, int]) -> StoredWeights:
    """Return the quantized weights by operator.

    Args:
        model: whose weights they are.
        num_bytes: of each quantized weight, by its name; a linear beside a quantized one that the
            same operator reads, and that is not named, counts 16 bits.
    """
    found = {}
    for name, layers in linear_layers(model).items():
        quantized = [layer for layer in layers if any(cost.weight in num_bytes for cost in layer)]
        total = sum(
            num_bytes.get(cost.weight, SIXTEEN_BIT_BYTES * cost.products)
            for layer in quantized
            for cost in layer
        )
        found[name] = StoredLinears(len(quantized), total)
    found[EXPERTS] = _experts(model, num_bytes)
    return StoredWeights(found, num_bytes.get(model_names(model).lm_head))
