"""The keys of a GGUF file's metadata: of each, the hub's field, and its value in a model.

The one table for both directions: `config.py` reads by it, `metadata.py` writes by it.
Source: llama.cpp 11434, gguf-py/gguf/constants.py (Keys) and the converters' set_gguf_parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nemotrt.engines.model.model_config import MambaConfig, ModelConfig, MoeConfig

Value = int | float | bool
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """A key behind the architecture's name.

    `field` is what the hub's config.json calls it; empty where it follows from others. `letters`
    are the kinds of blocks of which a hybrid's file has the value, 0 standing at the others.
    """

    name: str
    field: str
    of: Callable[[ModelConfig], Value | None]
    letters: str = ""
    is_optional: bool = False


def _mamba(model: ModelConfig) -> MambaConfig:
    assert model.mamba is not None  # every hybrid has Mamba blocks
    return model.mamba


def _moe(model: ModelConfig) -> MoeConfig:
    assert model.moe is not None  # the architecture is that of experts
    return model.moe


COMMON = (
    Key("context_length", "max_position_embeddings", lambda m: m.max_position_embeddings),
    Key("embedding_length", "hidden_size", lambda m: m.hidden_size),
    Key("attention.head_count", "num_attention_heads", lambda m: m.num_attention_heads),
    Key("attention.key_length", "head_dim", lambda m: m.head_dim),
    Key("attention.value_length", "", lambda m: m.head_dim),
)
WIDTH = Key("feed_forward_length", "intermediate_size", lambda m: m.intermediate_size, "-")
EXPERT_WIDTH = Key(
    "feed_forward_length", "intermediate_size", lambda m: _moe(m).intermediate_size, "E"
)
KV_HEADS = Key(
    "attention.head_count_kv", "num_key_value_heads", lambda m: m.num_key_value_heads, "*"
)
EPSILON = "attention.layer_norm_epsilon"
RMS_EPSILON = "attention.layer_norm_rms_epsilon"
HYBRID = (
    *COMMON,
    KV_HEADS,
    # Configs spell it in two ways, and the converter follows: one of them is there.
    Key(RMS_EPSILON, "layer_norm_epsilon", lambda m: m.norm_eps, is_optional=True),
    Key(EPSILON, "layer_norm_epsilon", lambda m: m.norm_eps, is_optional=True),
    Key("vocab_size", "", lambda m: m.vocab_size),
    # No position is rotated: the converter says so, and a size that nothing uses.
    Key("rope.scaling.finetuned", "", lambda m: False),
    Key("rope.dimension_count", "", lambda m: m.hidden_size // m.num_attention_heads),
    Key("ssm.conv_kernel", "conv_kernel", lambda m: _mamba(m).conv_kernel),
    Key("ssm.state_size", "ssm_state_size", lambda m: _mamba(m).state_size),
    Key("ssm.group_count", "n_groups", lambda m: _mamba(m).num_groups),
    Key("ssm.time_step_rank", "mamba_num_heads", lambda m: _mamba(m).num_heads),
    Key("ssm.inner_size", "", lambda m: _mamba(m).inner_size),
)
EXPERTS = (
    Key("expert_count", "n_routed_experts", lambda m: _moe(m).num_experts),
    Key("expert_used_count", "num_experts_per_tok", lambda m: _moe(m).num_chosen),
    Key("expert_group_count", "n_group", lambda m: _moe(m).num_groups, is_optional=True),
    Key(
        "expert_group_used_count",
        "topk_group",
        lambda m: _moe(m).num_chosen_groups,
        is_optional=True,
    ),
    Key("expert_feed_forward_length", "moe_intermediate_size", lambda m: _moe(m).intermediate_size),
    Key(
        "expert_shared_feed_forward_length",
        "moe_shared_expert_intermediate_size",
        lambda m: _moe(m).shared_intermediate_size,
    ),
    Key("expert_shared_count", "n_shared_experts", lambda m: 1),
    Key("expert_weights_norm", "norm_topk_prob", lambda m: _moe(m).is_normalized),
    Key("expert_weights_scale", "routed_scaling_factor", lambda m: _moe(m).scaling_factor),
    Key("moe_latent_size", "moe_latent_size", lambda m: _moe(m).latent_size, is_optional=True),
)
KEYS = {
    "nemotron_h": (*HYBRID, WIDTH),
    "nemotron_h_moe": (*HYBRID, EXPERT_WIDTH, *EXPERTS),
    "qwen3": (
        *COMMON,
        KV_HEADS,
        WIDTH,
        Key(RMS_EPSILON, "rms_norm_eps", lambda m: m.norm_eps),
        Key("rope.freq_base", "rope_theta", lambda m: m.rope_theta),
    ),
}
BLOCK_COUNT = "block_count"
# The fields that are no counts.
FLAGS = ("norm_topk_prob",)
NUMBERS = ("layer_norm_epsilon", "rms_norm_eps", "rope_theta", "routed_scaling_factor")
# Of a generation_config.json: what a file says of sampling. Source: gguf-py/gguf/metadata.py.
SAMPLING = {
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "temperature": "general.sampling.temp",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
