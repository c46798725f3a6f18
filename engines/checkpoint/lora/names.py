"""The names of an adapter's tensors, as several writers spell them, and the linears that they mean.

PEFT writes `base_model.model.` before the module's name in its model, and in memory the adapter's
name before `weight`; transformers writes neither. The model's root is `model` in transformers and
`backbone` in the hub's own code of nemotron_h.
"""

import re
from typing import NamedTuple

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import model_names

KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\."
    r"(?P<part>lora_A|lora_B|lora_magnitude_vector)(?:\.[^.]+)??(?:\.weight)?"
)
ROOTS = r"(?:(?:base_model|language_model|model|backbone)\.)*"
IN_LAYER = re.compile(rf"(?P<root>{ROOTS})layers\.(?P<layer>\d+)\.(?P<leaf>.+)")
OF_HEAD = re.compile(rf"(?P<root>{ROOTS})lm_head")


class Key(NamedTuple):
    """A tensor's module in the writer's model, and which part of its adapter it is."""

    module: str
    part: str


def read_key(name: str) -> Key | None:
    """Return what an adapter's tensor is; None of one that is no part of a linear's LoRA."""
    found = KEY.fullmatch(name)
    return Key(found["module"], found["part"]) if found else None


def hub_weight(module: str, config: ModelConfig) -> str:
    """Return the hub's name of the weight of a writer's module, whether there is one or not."""
    if OF_HEAD.fullmatch(module):
        return "lm_head.weight"
    found = IN_LAYER.fullmatch(module)
    if found is None:
        return f"{module}.weight"
    return f"{_root(config)}.layers.{found['layer']}.{found['leaf']}.weight"


def writers_module(weight: str, like: str, config: ModelConfig) -> str:
    """Return a weight's module in the model of a writer, one of whose modules is `like`."""
    found = IN_LAYER.fullmatch(like)
    root = found["root"] if found else f"{_root(config)}."
    return root + weight.removeprefix(f"{_root(config)}.").removesuffix(".weight")


def _root(config: ModelConfig) -> str:
    return model_names(config).final_norm.partition(".")[0]
