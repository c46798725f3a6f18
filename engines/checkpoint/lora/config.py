"""adapter_config.json: what of PEFT's settings is understood, and what is refused by name."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from nemotrt.errors import ConfigError
from nemotrt.files.model_file import object_model
from nemotrt.files.text_file import read_json_object

CONFIG_FILE = "adapter_config.json"
ALL_LINEAR = "all-linear"
# Ways of beginning a training that leave the base model as it is; the others change its weights.
# Source: peft 0.21, tuners/lora/config.py, init_lora_weights.
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
# What has no effect on a trained adapter's result.
UNHEEDED = {
    *(
        "auto_mapping",
        "peft_version",
        "inference_mode",
        "revision",
        "lora_dropout",
        "runtime_config",
    ),
    *("megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("qalora_group_size", "ensure_weight_tying", "base_model_class", "parent_library"),
}
# What is another method, or touches what no linear has; each with the reason.
REFUSED = {
    "modules_to_save": "it replaces whole modules, which is no low-rank change",
    "fan_in_fan_out": "it is for Conv1D layers, whose weights are transposed; this model has none",
    "lora_bias": "the model's linears have no bias to add it to",
    "trainable_token_indices": "it replaces rows of the embeddings",
    "layer_replication": "it makes another model of the base",
    "target_parameters": "it adapts tensors outside linears, such as all experts' in one piece",
    "alora_invocation_tokens": "an activated LoRA holds from some token on alone",
    "use_qalora": "its inputs are averaged in groups, which no merge can express",
    "use_bdlora": "it is a block-diagonal LoRA",
    "arrow_config": "it routes between adapters",
    "megatron_config": "it is for Megatron's parallel layers",
}


class AdapterConfig(pydantic.BaseModel):
    """What decides which weights an adapter changes, and by how much."""

    model_config = pydantic.ConfigDict(frozen=True, extra="allow")

    peft_type: str
    r: int = pydantic.Field(ge=1)
    lora_alpha: float
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    use_rslora: bool = False
    use_dora: bool = False
    bias: str = "none"
    task_type: str | None = None
    init_lora_weights: Any = True
    base_model_name_or_path: str | None = None

    def rank(self, module: str) -> int:
        """Return the rank of a module, by its name in the writer's model."""
        return int(_of_pattern(self.rank_pattern, module, self.r))

    def scale(self, module: str) -> float:
        """Return the factor of a module's product: alpha / r, or alpha / sqrt(r) of rsLoRA."""
        rank = self.rank(module)
        alpha = float(_of_pattern(self.alpha_pattern, module, self.lora_alpha))
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def targets(self, module: str, *, is_head: bool = False) -> bool:
        """Whether the config names a linear; `is_head` is the one that gives logits.

        Source: peft 0.21, check_target_module_exists and INCLUDE_LINEAR_LAYERS_SHORTHAND.
        """
        if _matches(self.exclude_modules, module):
            return False
        wanted = self.target_modules
        if isinstance(wanted, str) and wanted.lower() == ALL_LINEAR:
            return not is_head
        if not _matches(wanted, module):
            return False
        return isinstance(wanted, str) or self._is_chosen_layer(module)

    def _is_chosen_layer(self, module: str) -> bool:
        """Whether `layers_to_transform` has the module's layer, or says nothing."""
        layers = self.layers_to_transform
        if layers is None or layers == []:
            return True
        found = None
        for pattern in _listed(self.layers_pattern) or [r"[^.]*"]:
            found = found or re.match(rf"(?:^|.*?\.){pattern}\.(?P<layer>\d+)\.", module)
        return found is not None and int(found["layer"]) in _listed(layers)


def _listed(value: Any) -> Sequence[Any]:
    """Return what may be one, several or none as a list."""
    return value if isinstance(value, list) else [] if value is None or value == "" else [value]


def _matches(wanted: str | list[str] | None, module: str) -> bool:
    """Whether names or a regular expression have a module."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted or ())


def _of_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Return the value of the first pattern that a module's name ends with.

    Source: peft 0.21, get_pattern_key.
    """
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Return the config of the adapter in `folder`.

    Raises:
        ArtefactError: the file is missing or no JSON object.
        ConfigError: it asks for what isn't understood, which is named.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} is no LoRA adapter: it has no {CONFIG_FILE}.")
    config = object_model(AdapterConfig, read_json_object(path), str(path))
    if config.peft_type != "LORA":
        raise ConfigError(f"{path}: peft_type {config.peft_type} is not supported; only LORA is.")
    if reason := _refusal(config):
        raise ConfigError(f"{path}: {reason}. Merge it in PEFT (merge_and_unload) instead.")
    return config


def _refusal(config: AdapterConfig) -> str | None:
    """Return what of a config is not understood, None for nothing."""
    for name, value in (config.model_extra or {}).items():
        if name in UNHEEDED or not value:
            continue
        return f"{name} is not supported: {REFUSED.get(name, 'it is not known here')}"
    if config.bias != "none":
        return f"bias {config.bias!r} is not supported: the adapter has trained biases"
    if config.task_type not in (None, "CAUSAL_LM"):
        return f"task_type {config.task_type} is not supported: the model writes text"
    if config.init_lora_weights not in PLAIN_STARTS:
        return (
            f"init_lora_weights {config.init_lora_weights!r} has changed the base model's weights; "
            "save it with path_initial_model_for_weight_conversion, as a plain LoRA"
        )
    if config.target_modules is None:
        return "target_modules is missing"
    for patterns in (config.target_modules, config.exclude_modules):
        if isinstance(patterns, str) and not _is_regex(patterns):
            return f"{patterns!r} is no regular expression"
    return next(
        (
            f"{pattern!r} is no regular expression"
            for pattern in (*config.rank_pattern, *config.alpha_pattern)
            if not _is_regex(pattern)
        ),
        None,
    )


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
