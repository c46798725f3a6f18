"""Which linears SmoothQuant smooths together, and what takes their factors, by the hub's names."""

import pytest

from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.profiles.planning.sources.known_models import known_models, load_model
from nemotrt.quantize.scales.smooth import groups

MIXERS = {  # of a Nemotron-H layer, by its letter: linears, absorber, the absorber's power
    "M": (
        ({"mixer.in_proj"}, "norm", 1.0),
        ({"mixer.out_proj"}, "mixer.norm", 1.0),
    ),
    "*": (({"mixer.q_proj", "mixer.k_proj", "mixer.v_proj"}, "norm", 1.0),),
    "-": (
        ({"mixer.up_proj"}, "norm", 1.0),
        ({"mixer.down_proj"}, "mixer.up_proj", 0.5),  # relu(x)^2
    ),
}
DENSE = (
    ({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, "input_layernorm", 1.0),
    ({"mlp.gate_proj", "mlp.up_proj"}, "post_attention_layernorm", 1.0),
    ({"mlp.down_proj"}, "mlp.up_proj", 1.0),
)


# int8-sq refuses models with experts.
NAMES = [name for name in (*known_models(), *TINY_MODELS) if load_model(name).moe is None]


@pytest.mark.parametrize("name", NAMES)
def test_groups_share_an_input_and_what_comes_before_absorbs(name: str) -> None:
    config = load_model(name)
    if config.model_type == "nemotron_h":
        layers = [
            (f"backbone.layers.{at}.", MIXERS[kind]) for at, kind in enumerate(config.pattern)
        ]
    else:
        layers = [(f"model.layers.{at}.", DENSE) for at in range(len(config.layers) // 2)]
    expected = [
        ({f"{layer}{leaf}.weight" for leaf in leaves}, f"{layer}{absorber}.weight", power)
        for layer, kinds in layers
        for leaves, absorber, power in kinds
    ]
    found = list(groups(config))
    assert [(set(group.weights), group.absorber, group.power) for group in found] == expected
    assert [group.is_norm for group in found] == ["_proj" not in each[1] for each in expected]
