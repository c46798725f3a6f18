"""Reads a Hugging Face config.json into a ModelConfig, in every spelling that is in use."""

from pathlib import Path
from typing import Any

from nemotrt.engines.model.config_fields import Fields, shared_sizes
from nemotrt.engines.model.model_config import (
    Activation,
    LayerKind,
    ModelConfig,
)
from nemotrt.engines.model.nemotron_h_config import read_nemotron_h
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.text_file import read_json_object

# Where a model that also sees images or hears says what its language model is; the first holds.
# Sources: transformers 5.24 (nemotron_h_omni), which writes text_config and reads both; the config
# of NVIDIA-Nemotron-Nano-12B-v2-VL (architecture NemotronH_Nano_VL_V2), as vLLM reads it.
LANGUAGE_FIELDS = ("text_config", "llm_config")


def read_model_config(checkpoint: Path) -> ModelConfig:
    """Return the model that `checkpoint/config.json` describes.

    Raises:
        ArtefactError: config.json is missing or not JSON.
        ConfigError: a field is missing, of the wrong type or out of range, or the model type or
            one of its features is unsupported.
    """
    path = checkpoint / "config.json"
    if not path.is_file():
        raise ArtefactError(
            f"{checkpoint} is not a checkpoint: it has no config.json; give a Hugging Face folder."
        )
    return parse_model_config(read_json_object(path), str(path))


def language_config(raw: dict[str, Any], source: str) -> tuple[dict[str, Any], str]:
    """Return the config of the language model, and where it is: all of `raw`, or a part of it."""
    name = next((name for name in LANGUAGE_FIELDS if raw.get(name) is not None), None)
    if name is None:
        return raw, source
    if not isinstance(raw[name], dict):
        raise ConfigError(f"{source}: {name} must be an object, got {raw[name]!r}.")
    return raw[name], f"{source}: {name}"


def parse_model_config(raw: dict[str, Any], source: str = "config.json") -> ModelConfig:
    """Return the model that the config dictionary `raw` describes; `source` names it in errors.

    Of a model that also sees images it is the language model, to which text alone goes.
    """
    raw, source = language_config(raw, source)
    fields = Fields(raw, source)
    model_type = fields.text("model_type")
    if model_type == "nemotron_h":
        return read_nemotron_h(raw, source)
    if model_type == "qwen3":
        return _qwen3(fields)
    raise ConfigError(
        f"{source}: model_type {model_type!r} is not supported; known: nemotron_h, qwen3."
    )


def _qwen3(fields: Fields) -> ModelConfig:
    fields.refuse("attention_bias", False)
    fields.refuse("hidden_act", "silu")
    fields.refuse("use_sliding_window", False)
    fields.refuse("is_causal", True)
    if fields.has("layer_types"):  # else as many as there are layers, and all full
        fields.refuse("layer_types", ["full_attention"] * fields.size("num_hidden_layers"))
    return ModelConfig(
        layers=(LayerKind.ATTENTION, LayerKind.MLP) * fields.size("num_hidden_layers"),
        activation=Activation.SWIGLU,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        rope_theta=_rope_theta(fields),
        has_qk_norm=True,
        **shared_sizes(fields, num_kv_heads=32, max_positions=32768),
    )


def _rope_theta(fields: Fields) -> float:
    """Return the rotary base; transformers 5 moved it into rope_parameters."""
    names = ("rope_parameters", "rope_scaling")
    if all(map(fields.has, names)) and fields.raw[names[0]] != fields.raw[names[1]]:
        raise fields.fail(names[1], f"disagrees with {names[0]}: leave one of them")
    for name in names:
        rope = fields.raw.get(name)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise fields.fail(name, f"must be an object, got {rope!r}")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise fields.fail(name, f"has rope_type {kind!r}; only plain rotary is supported")
        if "rope_theta" in rope:
            return Fields(rope, f"{fields.source}: {name}").number("rope_theta")
    return fields.number("rope_theta", 10000.0)
