"""The linears inside the blocks: shapes, bytes and arithmetic, by the operators that read them."""

from collections.abc import Iterator
from dataclasses import dataclass

from nemotrt.engines.model.model_config import Activation, LayerKind, ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.sources.stored_weights import PLACES
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
    for name, (rows, columns) in _shapes(model).items():
        num_layers, num_weights = model.count(PLACES[name][0]), rows * columns
        if formats.stored is None:
            num_bytes = num_layers * num_weights * formats.linear.num_bits / 8
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


def _shapes(model: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return rows and columns of each operator's linears in one layer; those that there are."""
    hidden = model.hidden_size
    shapes = {}
    if model.num_attention_layers:
        shapes["qkv_proj"] = model.q_size + 2 * model.kv_size, hidden
        shapes["o_proj"] = hidden, model.q_size
    if model.count(LayerKind.MLP):
        num_inputs = 2 if model.activation is Activation.SWIGLU else 1
        shapes["mlp_up"] = num_inputs * model.intermediate_size, hidden
        shapes["mlp_down"] = hidden, model.intermediate_size
    if model.mamba and model.num_mamba_layers:
        shapes["mamba_in_proj"] = model.mamba.in_proj_size, hidden
        shapes["mamba_out_proj"] = hidden, model.mamba.inner_size
    return shapes
