"""The tensors of a GGUF file: llama.cpp's names beside the hub's, and what its converter changes.

The one table for both directions: `tensors.py` reads by it, `quantize` writes by it.
Source: llama.cpp 11434, conversion/{mamba,granite,nemotron,llama,qwen}.py, and gguf-py.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from nemotrt.engines.model.model_config import ModelConfig


class Change(StrEnum):
    """What the converter does to a tensor."""

    NONE = "none"
    AXIS = "axis"  # [n] is stored as [n, 1]
    A = "a"  # A_log [n] is stored as A = -exp(A_log), [n, 1]
    GROUPS = "groups"  # [channels] is stored as [groups, channels of one]
    CONV = "conv"  # [channels, 1, taps] is stored as [channels, taps]
    HEADS = "heads"  # rows of q and k are interleaved within each head
    EXPERTS = "experts"  # the same weight of all experts is one tensor [experts, out, in]


@dataclass(frozen=True, slots=True)
class Row:
    """A tensor of a block: its name in the file and on the hub, and its change."""

    stored: str
    hub: str  # {} stands for the number of an expert
    change: Change = Change.NONE


OUTSIDE = {
    "nemotron_h": {
        "token_embd.weight": "backbone.embeddings.weight",
        "output_norm.weight": "backbone.norm_f.weight",
        "output.weight": "lm_head.weight",
    },
    "qwen3": {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    },
}
HYBRID = (
    Row("attn_norm.weight", "norm.weight"),
    Row("ssm_in.weight", "mixer.in_proj.weight"),
    Row("ssm_conv1d.weight", "mixer.conv1d.weight", Change.CONV),
    Row("ssm_conv1d.bias", "mixer.conv1d.bias"),
    Row("ssm_dt.bias", "mixer.dt_bias"),
    Row("ssm_a", "mixer.A_log", Change.A),
    Row("ssm_d", "mixer.D", Change.AXIS),
    Row("ssm_norm.weight", "mixer.norm.weight", Change.GROUPS),
    Row("ssm_out.weight", "mixer.out_proj.weight"),
    Row("attn_q.weight", "mixer.q_proj.weight", Change.HEADS),
    Row("attn_k.weight", "mixer.k_proj.weight", Change.HEADS),
    Row("attn_v.weight", "mixer.v_proj.weight"),
    Row("attn_output.weight", "mixer.o_proj.weight"),
    Row("ffn_up.weight", "mixer.up_proj.weight"),
    Row("ffn_down.weight", "mixer.down_proj.weight"),
)
EXPERTS = (
    Row("ffn_gate_inp.weight", "mixer.gate.weight"),
    Row("exp_probs_b.bias", "mixer.gate.e_score_correction_bias"),
    Row("ffn_up_exps.weight", "mixer.experts.{}.up_proj.weight", Change.EXPERTS),
    Row("ffn_down_exps.weight", "mixer.experts.{}.down_proj.weight", Change.EXPERTS),
    Row("ffn_up_shexp.weight", "mixer.shared_experts.up_proj.weight"),
    Row("ffn_down_shexp.weight", "mixer.shared_experts.down_proj.weight"),
    Row("ffn_latent_down.weight", "mixer.fc1_latent_proj.weight"),
    Row("ffn_latent_up.weight", "mixer.fc2_latent_proj.weight"),
)
DENSE = (
    Row("attn_norm.weight", "input_layernorm.weight"),
    Row("attn_q.weight", "self_attn.q_proj.weight"),
    Row("attn_k.weight", "self_attn.k_proj.weight"),
    Row("attn_v.weight", "self_attn.v_proj.weight"),
    Row("attn_output.weight", "self_attn.o_proj.weight"),
    Row("attn_q_norm.weight", "self_attn.q_norm.weight"),
    Row("attn_k_norm.weight", "self_attn.k_norm.weight"),
    Row("ffn_norm.weight", "post_attention_layernorm.weight"),
    Row("ffn_gate.weight", "mlp.gate_proj.weight"),
    Row("ffn_up.weight", "mlp.up_proj.weight"),
    Row("ffn_down.weight", "mlp.down_proj.weight"),
)
INSIDE = {"nemotron_h": HYBRID, "nemotron_h_moe": (*HYBRID, *EXPERTS), "qwen3": DENSE}
# The hub's model_type of each architecture of llama.cpp's, and where its layers are.
MODEL_TYPES = {"nemotron_h": "nemotron_h", "nemotron_h_moe": "nemotron_h", "qwen3": "qwen3"}
LAYERS = {"nemotron_h": "backbone.layers", "qwen3": "model.layers"}
ARCHITECTURES = tuple(INSIDE)
BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
NUMBER = re.compile(r"(?<=\.experts\.)\d+(?=\.)")


def architecture_of(model: ModelConfig) -> str:
    """Return what llama.cpp calls the model's kind."""
    return f"{model.model_type}_moe" if model.moe is not None else model.model_type


def hub_name(architecture: str, stored: str) -> tuple[str, Change]:
    """Return the hub's name of a stored tensor, and its change; one without a name keeps its own.

    {} stands for the number of an expert.
    """
    model_type = MODEL_TYPES[architecture]
    found = BLOCK.fullmatch(stored)
    if found is None:
        return OUTSIDE[model_type].get(stored, stored), Change.NONE
    for row in INSIDE[architecture]:
        if row.stored == found[2]:
            return f"{LAYERS[model_type]}.{int(found[1])}.{row.hub}", row.change
    return stored, Change.NONE


def stored_name(architecture: str, hub: str) -> tuple[str, Change] | None:
    """Return the name of a tensor of the hub's in a file, and its change; None if it has none."""
    model_type = MODEL_TYPES[architecture]
    for stored, name in OUTSIDE[model_type].items():
        if name == hub:
            return stored, Change.NONE
    number, _, leaf = hub.removeprefix(f"{LAYERS[model_type]}.").partition(".")
    for row in INSIDE[architecture]:
        if number.isdecimal() and row.hub == NUMBER.sub("{}", leaf):
            return f"blk.{number}.{row.stored}", row.change
    return None
