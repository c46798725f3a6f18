"""Reads the config.json of any dense GQA or MHA transformer, for planning only."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class DenseType:
    """What a config.json of a type means where it leaves a field out."""

    context: int  # max_position_embeddings
    kv_heads: int | None = None  # as many as heads
    head_dim: int | None = None  # hidden_size over heads
    is_gated: bool = True  # else the MLP has two matrices
    is_tied: bool = False  # the head is the embedding


# The types whose layers are one attention and one MLP each. Any other is refused: a type that
# nobody read may mix tokens by other means, or not generate at all.
# Source: transformers 5.24, the configuration and modeling files of these types; internlm2's own.
DENSE_TYPES = {
    "apertus": DenseType(65536, is_gated=False),
    "arcee": DenseType(4096, is_gated=False),
    "cohere": DenseType(8192, is_tied=True),
    "cohere2": DenseType(8192, is_tied=True),
    "ernie4_5": DenseType(131072, kv_heads=2, head_dim=128, is_tied=True),
    "exaone": DenseType(4096, kv_heads=8),
    "exaone4": DenseType(2048, kv_heads=32),
    "gemma": DenseType(8192, kv_heads=16, head_dim=256, is_tied=True),
    "gemma2": DenseType(8192, kv_heads=4, head_dim=256, is_tied=True),
    "gemma3_text": DenseType(131072, kv_heads=4, head_dim=256, is_tied=True),
    "glm": DenseType(131072, kv_heads=2, head_dim=128),
    "glm4": DenseType(131072, kv_heads=2, head_dim=128),
    "gpt_neox": DenseType(2048, is_gated=False),
    "granite": DenseType(2048),
    "internlm2": DenseType(2048),
    "llama": DenseType(2048),
    "ministral": DenseType(131072, kv_heads=8),
    "mistral": DenseType(131072, kv_heads=8),
    "nemotron": DenseType(4096, is_gated=False),
    "olmo": DenseType(2048),
    "olmo2": DenseType(2048),
    "olmo3": DenseType(2048),
    "persimmon": DenseType(16384, is_gated=False),
    "phi": DenseType(2048, is_gated=False),
    "phi3": DenseType(4096),
    "qwen2": DenseType(32768, kv_heads=32),
    "seed_oss": DenseType(524288, kv_heads=8, head_dim=128),
    "smollm3": DenseType(32768, kv_heads=4, is_tied=True),
    "stablelm": DenseType(4096, kv_heads=32),
    "starcoder2": DenseType(4096, kv_heads=2, is_gated=False, is_tied=True),
}
KNOWN_LAYER_TYPES = ("full_attention", "sliding_attention")


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
        names = ", ".join(("nemotron_h", "qwen3", *DENSE_TYPES))
        raise fields.fail("model_type", f"{model_type!r} is none that the planner knows: {names}")
    check_layers(fields, raw)
    known = DENSE_TYPES[model_type]
    num_heads = fields.size("num_attention_heads")
    left_out = num_heads if "num_key_value_heads" in raw else known.kv_heads or num_heads
    num_kv_heads = fields.size("num_key_value_heads", left_out)
    if num_heads % num_kv_heads:
        raise fields.fail("num_key_value_heads", f"({num_kv_heads}) must divide {num_heads} heads")
    hidden_size = fields.size("hidden_size")
    head_dim = None if "head_dim" in raw else known.head_dim
    return ModelConfig(
        model_type=model_type,
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden_size,
        layers=(LayerKind.ATTENTION, LayerKind.MLP) * fields.size("num_hidden_layers"),
        intermediate_size=fields.size("intermediate_size"),
        activation=Activation.SWIGLU if known.is_gated else Activation.RELU2,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=fields.size("head_dim", head_dim or max(hidden_size // num_heads, 1)),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        tie_word_embeddings=fields.flag("tie_word_embeddings", known.is_tied),
        max_position_embeddings=fields.size("max_position_embeddings", known.context),
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
