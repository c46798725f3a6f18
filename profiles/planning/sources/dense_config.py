"""Reads the config.json of any dense GQA or MHA transformer, for planning only."""

from typing import Any

from nemotrt.engines.model.config_fields import Fields
from nemotrt.engines.model.model_config import Activation, LayerKind, ModelConfig

# Fields whose presence means that KV bytes or weights are counted by other rules.
UNSUPPORTED = {
    "num_experts": "experts",
    "num_local_experts": "experts",
    "n_routed_experts": "experts",
    "kv_lora_rank": "latent attention (MLA)",
    "mamba_num_heads": "Mamba layers outside nemotron_h",
    "mamba_n_heads": "Mamba layers outside nemotron_h",
    "layers_block_type": "mixed layers outside nemotron_h",
    "linear_num_value_heads": "linear attention",
    "linear_attn_config": "linear attention",
    "attn_type_list": "linear attention",
    "ssm_state_size": "Mamba layers outside nemotron_h",
    "mamba_d_state": "Mamba layers outside nemotron_h",
    "attention_chunk_size": "attention in chunks",
    "cross_attention_layers": "cross-attention",
    "block_configs": "blocks of different sizes",
    "num_key_value_heads_per_layer": "layers of different sizes",
    "num_kv_shared_layers": "layers that share a KV cache",
}
# The types whose layers are one attention and one MLP each. Any other is refused: a type that
# nobody read may mix tokens by other means, or not generate at all.
# Source: transformers 5.24, the modeling files of these types.
DENSE_TYPES = (
    "apertus",
    "arcee",
    "cohere",
    "cohere2",
    "ernie4_5",
    "exaone",
    "exaone4",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "gpt_neox",
    "granite",
    "internlm2",
    "llama",
    "ministral",
    "mistral",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "persimmon",
    "phi",
    "phi3",
    "qwen2",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
)
KNOWN_LAYER_TYPES = ("full_attention", "sliding_attention")
# Two-matrix MLPs; all others gate. Source: transformers 5.24, the modeling files of these types.
UNGATED_TYPES = (
    "apertus",
    "arcee",
    "gpt_neox",
    "nemotron",
    "persimmon",
    "phi",
    "starcoder2",
)
# Types whose head is the embedding unless config.json says otherwise; files leave out defaults.
# Source: transformers 5.24, the configuration classes of these types.
TIED_TYPES = (
    "cohere",
    "cohere2",
    "ernie4_5",
    "gemma",
    "gemma2",
    "gemma3_text",
    "smollm3",
    "starcoder2",
)


def parse_dense_config(raw: dict[str, Any], source: str) -> ModelConfig:
    """Return the sizes of a dense transformer; it is not a promise that an engine can be built.

    Biases are left out (under 0.01 % of the weights). Sliding windows are read in `windows`.

    Raises:
        ConfigError: a size is missing, the type is none that the planner knows, or the model has
            experts, latent attention, or layers that mix tokens by other means than attention.
    """
    fields = Fields(raw, source)
    model_type = fields.text("model_type")
    if model_type not in DENSE_TYPES:
        known = ", ".join(("nemotron_h", "qwen3", *DENSE_TYPES))
        raise fields.fail("model_type", f"{model_type!r} is none that the planner knows: {known}")
    check_layers(fields, raw)
    num_heads = fields.size("num_attention_heads")
    num_kv_heads = fields.size("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise fields.fail("num_key_value_heads", f"({num_kv_heads}) must divide {num_heads} heads")
    hidden_size = fields.size("hidden_size")
    is_ungated = model_type in UNGATED_TYPES
    return ModelConfig(
        model_type=model_type,
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden_size,
        layers=(LayerKind.ATTENTION, LayerKind.MLP) * fields.size("num_hidden_layers"),
        intermediate_size=fields.size("intermediate_size"),
        activation=Activation.RELU2 if is_ungated else Activation.SWIGLU,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=fields.size("head_dim", max(hidden_size // num_heads, 1)),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        tie_word_embeddings=fields.flag("tie_word_embeddings", model_type in TIED_TYPES),
        max_position_embeddings=fields.size("max_position_embeddings", 131072),
        rope_theta=10000.0,
    )


def check_layers(fields: Fields, raw: dict[str, Any]) -> None:
    """Raise where a config's layers are not one attention and one MLP each, all of one size.

    Raises:
        ConfigError: naming the key that says so.
    """
    mixers = raw.get("layer_types") or ()
    unknown = sorted({str(mixer) for mixer in mixers} - set(KNOWN_LAYER_TYPES))
    if unknown:
        raise fields.fail(
            "layer_types", f"has {', '.join(unknown)}, which the planner does not model"
        )
    for name, what in UNSUPPORTED.items():
        if fields.has(name) and raw[name] not in (0, 1, [], {}):
            raise fields.fail(name, f"means {what}, which the planner does not model")
