"""The cost emitter: the files' own shapes as oracle, and a block that is only described."""

import math
from dataclasses import replace
from typing import Any

import pytest
from safetensors import safe_open

from nemotrt.engines.graph.cost import Kind, costs
from nemotrt.engines.model import description
from nemotrt.engines.model.model_config import LayerKind, ModelConfig
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.model.tensor_names import Block
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.operators import decode_call, operators

BF16 = Formats(Precision.BF16, NumberFormat.BF16, NumberFormat.FP32)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_a_linear_multiplies_once_by_each_weight_of_the_file(name: str) -> None:
    model = load_model(name)
    found = {c.weight: c.products for c in costs(model) if c.kind is Kind.LINEAR}
    with safe_open(TINY_MODELS[name] / "model.safetensors", "pt") as file:
        shapes = {n: file.get_slice(n).get_shape() for n in file.keys()}  # noqa: SIM118
    assert found == {n: math.prod(s) for n, s in shapes.items() if n in found}
    wanted = {n for n in shapes if n.endswith("_proj.weight")}
    assert {n for n in found if n.endswith("_proj.weight")} == wanted
    assert len(found) == len(wanted) + 1  # and the head


def test_a_new_block_is_planned_by_being_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLP that runs twice in its block costs twice, though the planner has no word of it."""
    plain = load_model("tiny")
    once = {op.name: op for op in operators(plain, BF16, decode_call(3, 10))}
    mlp = description.BLOCKS[LayerKind.MLP]

    def twice(config: ModelConfig, block: Block, x: Any, emitter: Any) -> Any:
        return mlp(config, block, mlp(config, block, x, emitter), emitter)

    monkeypatch.setitem(description.BLOCKS, LayerKind.MLP, twice)
    other = replace(plain, max_position_embeddings=77)  # a model that no cache has seen
    found = {op.name: op for op in operators(other, BF16, decode_call(3, 10))}
    for name, operator in once.items():
        factor = 2 if name in ("mlp_up", "mlp_down", "activation") else 1
        assert found[name].num_flops == factor * operator.num_flops, name
        assert found[name].num_bytes == factor * operator.num_bytes, name
        assert found[name].num_launches == factor * operator.num_launches, name
