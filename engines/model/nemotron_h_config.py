"""Reads the config.json of a nemotron_h: its layers, Mamba-2 blocks and experts."""

import math
from typing import Any

from nemotrt.engines.model.config_fields import Fields, shared_sizes
from nemotrt.engines.model.model_config import (
    PATTERN_LETTERS,
    Activation,
    LayerKind,
    MambaConfig,
    ModelConfig,
    MoeConfig,
)

# transformers 5 spells the same layers as words, and has changed the words once.
LAYER_WORDS = {
    "mamba": LayerKind.MAMBA,
    "linear_attention": LayerKind.MAMBA,
    "mlp": LayerKind.MLP,
    "attention": LayerKind.ATTENTION,
    "full_attention": LayerKind.ATTENTION,
    "moe": LayerKind.MOE,
}
# Older spellings, which win over the newer ones beside them. Source: transformers 5.24,
# configuration_nemotron_h.py, __post_init__ and attribute_map.
ALIASES = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_chunk_size": "chunk_size",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_dt_limit": "time_step_limit",
    "layer_types": "layers_block_type",
    "num_local_experts": "n_routed_experts",
}


def read_nemotron_h(raw: dict[str, Any], source: str) -> ModelConfig:
    """Return the model; raises ConfigError for what is wrong or unsupported in it."""
    fields = Fields(raw, source, ALIASES)
    for name in ("attention_bias", "mlp_bias", "use_bias", "mamba_proj_bias"):
        fields.refuse(name, False)
    fields.refuse("use_conv_bias", True)
    fields.refuse("mlp_hidden_act", "relu2")
    fields.refuse("mamba_hidden_act", "silu")
    fields.refuse("is_causal", True)
    if fields.has("sliding_window"):  # vLLM applies it, transformers does not
        raise fields.fail("sliding_window", "must be null: loaders disagree on any other")
    layers = _layers(fields)
    return ModelConfig(
        layers=layers,
        activation=Activation.RELU2,
        norm_eps=fields.number("layer_norm_epsilon", fields.number("norm_eps", 1e-5)),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        mamba=_mamba(fields) if LayerKind.MAMBA in layers else None,
        moe=_moe(fields) if LayerKind.MOE in layers else None,
        **shared_sizes(fields, num_kv_heads=8, max_positions=4096),
    )


def _layers(fields: Fields) -> tuple[LayerKind, ...]:
    """Return the blocks from transformers' list of words, else from the hub's pattern string."""
    name = "layers_block_type"
    if not fields.has(name):
        name = "hybrid_override_pattern"
        if not fields.has(name):
            raise fields.fail(name, "(or layers_block_type) is missing")
    value = fields.raw[name]
    known = PATTERN_LETTERS if isinstance(value, str) else LAYER_WORDS
    if not isinstance(value, str | list) or not value:
        raise fields.fail(name, f"must name at least one layer, got {value!r}")
    for position, item in enumerate(value):
        if not isinstance(item, str) or item not in known:
            raise fields.fail(
                name, f"has {item!r} at position {position}; known: {', '.join(known)}"
            )
    layers = tuple(known[item] for item in value)
    if fields.has("num_hidden_layers") and fields.size("num_hidden_layers") != len(layers):
        raise fields.fail(
            "num_hidden_layers",
            f"({fields.raw['num_hidden_layers']}) disagrees with {name}, which has {len(layers)}",
        )
    return layers


def _mamba(fields: Fields) -> MambaConfig:
    num_heads = fields.size("mamba_num_heads")
    num_groups = fields.size("n_groups")
    if num_heads % num_groups:
        raise fields.fail("n_groups", f"({num_groups}) must divide mamba_num_heads ({num_heads})")
    kernel = fields.size("conv_kernel")
    if kernel < 2:
        raise fields.fail("conv_kernel", "must be at least 2")
    return MambaConfig(
        num_heads=num_heads,
        head_dim=fields.size("mamba_head_dim"),
        state_size=fields.size("ssm_state_size"),
        num_groups=num_groups,
        conv_kernel=kernel,
        chunk_size=fields.size("chunk_size", 128),
        time_step_limit=_time_step_limit(fields),
    )


def _moe(fields: Fields) -> MoeConfig:
    """Return the dimensions of the expert blocks.

    Loaders disagree on any other number of shared experts than 1: transformers ignores it, vLLM
    multiplies the width by it.
    """
    fields.refuse("n_shared_experts", 1)
    num_experts, num_groups = fields.size("n_routed_experts"), fields.size("n_group", 1)
    num_chosen, num_chosen_groups = fields.size("num_experts_per_tok"), fields.size("topk_group", 1)
    if num_experts % num_groups:
        raise fields.fail("n_group", f"({num_groups}) must divide {num_experts} experts")
    if num_groups > 1 and num_experts // num_groups < 2:
        raise fields.fail(
            "n_group", f"({num_groups}) leaves groups of one of {num_experts} experts"
        )
    if num_chosen_groups > num_groups:
        raise fields.fail("topk_group", f"({num_chosen_groups}) exceeds n_group ({num_groups})")
    candidates = num_experts // num_groups * num_chosen_groups
    if num_chosen > candidates:
        raise fields.fail("num_experts_per_tok", f"({num_chosen}) exceeds {candidates} candidates")
    return MoeConfig(
        num_experts=num_experts,
        num_chosen=num_chosen,
        intermediate_size=fields.size("moe_intermediate_size"),
        shared_intermediate_size=fields.size("moe_shared_expert_intermediate_size"),
        latent_size=fields.size("moe_latent_size") if fields.has("moe_latent_size") else None,
        num_groups=num_groups,
        num_chosen_groups=num_chosen_groups,
        is_normalized=fields.flag("norm_topk_prob", True),
        scaling_factor=fields.number("routed_scaling_factor", 1.0),
    )


def _time_step_limit(fields: Fields) -> tuple[float, float]:
    """Return (low, high); JSON has no infinity, and writers spell it in three ways."""
    value = fields.raw.get("time_step_limit")
    if value is None:
        return (0.0, math.inf)
    if not isinstance(value, list) or len(value) != 2:
        raise fields.fail("time_step_limit", f"must be [low, high], got {value!r}")
    try:
        low, high = (float(x["__float__"] if isinstance(x, dict) else x) for x in value)
    except (KeyError, TypeError, ValueError):
        raise fields.fail("time_step_limit", f"must hold numbers, got {value!r}") from None
    if not 0 <= low < high:
        raise fields.fail("time_step_limit", f"must be 0 <= low < high, got {value!r}")
    return (low, high)
