"""The linears inside the blocks: shapes, bytes and arithmetic, by the operators that read them."""

from collections.abc import Iterator
from dataclasses import dataclass

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.sources.stored_weights import EXPERTS, expert_costs, linear_layers
from nemotrt.profiles.planning.time.formats import Formats


@dataclass(frozen=True, slots=True)
class Linears:
    """The linears that one operator stands for: alike in place, shape and format."""

    name: str
    num_layers: int
    rows: int
    columns: int
    num_bytes: float  # of the weights of all these layers
    arithmetic: NumberFormat


def linears(model: ModelConfig, formats: Formats) -> Iterator[Linears]:
    """Yield the linears inside the blocks; layers that a checkpoint leaves in 16 bits apart."""
    for name, layers in linear_layers(model).items():
        num_layers, rows = len(layers), sum(cost.writes for cost in layers[0])
        columns = layers[0][0].reads
        num_weights = rows * columns
        if formats.stored is None:
            num_bytes = num_layers * formats.linear_bytes(num_weights)
            yield Linears(name, num_layers, rows, columns, num_bytes, formats.arithmetic)
            continue
        coded = formats.stored.linears[name]
        if coded.num_layers:
            num_bytes = coded.num_bytes
            yield Linears(name, coded.num_layers, rows, columns, num_bytes, formats.arithmetic)
        if kept := num_layers - coded.num_layers:
            num_bytes = kept * num_weights * formats.activation.num_bytes
            title = f"{name} (16 bit)" if coded.num_layers else name
            yield Linears(title, kept, rows, columns, num_bytes, formats.activation)


def expert_bytes(model: ModelConfig, formats: Formats) -> float:
    """Return the bytes of all experts but the shared ones, which are linears like others."""
    layers = expert_costs(model)
    if formats.stored is None or not layers:
        return sum(cost.weights for cost in layers) * formats.linear.num_bits / 8
    coded = formats.stored.linears[EXPERTS]
    kept = (len(layers) - coded.num_layers) * layers[0].weights
    return coded.num_bytes + kept * formats.activation.num_bytes


def chosen_share(num_experts: int, num_chosen: int, num_tokens: float) -> float:
    """Return the share of a block's experts that some of the tokens choose.

    Each token chooses evenly and by itself. Real texts favour some experts: fewer are read then.
    """
    return float(1 - (1 - num_chosen / num_experts) ** num_tokens)
