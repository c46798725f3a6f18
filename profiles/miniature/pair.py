"""Two small models in the proportions of the real pair, Nemotron-Nano-9B-v2 and Qwen3-8B.

What is kept: attention layers 1 to 9 with equal KV heads, so 1 to 9 bytes of KV cache a token (as
4 to 36 layers); 7 Mamba and 6 MLP layers for each attention layer (27 and 25 for 4); the share of
a request's memory that is state and not cache; one prompt token for two answer tokens. What is
equal: the number of parameters, by the width of the baseline's MLP.
"""

from dataclasses import dataclass
from typing import Any

from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.tiny.models import hybrid_config
from nemotrt.profiles.planning.memory.weights import num_parameters

HIDDEN_SIZE = 512
VOCAB_SIZE = 4096
LAYERS = "M-M-M-M*-M-M-M"
NUM_BASELINE_LAYERS = 9
ATTENTION = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64}
MAMBA_HEADS, MAMBA_HEAD_DIM, MAMBA_GROUPS, CONV_KERNEL = 18, 64, 2, 4
# State of a request over its KV cache in the published run: 69.4 MiB (16-bit state) over
# 24,576 tokens of 16 KiB. Source: perf arithmetic of the planner, nemotron-nano-9b-v2 at 8k/16k.
STATE_SHARE = 69.4 / 384
MLP_STEP = 8  # widths are multiples of it


@dataclass(frozen=True, slots=True)
class Pair:
    """The two config.json, and what they describe."""

    hybrid_json: dict[str, Any]
    baseline_json: dict[str, Any]

    @property
    def hybrid(self) -> ModelConfig:
        """The hybrid model."""
        return parse_model_config(self.hybrid_json)

    @property
    def baseline(self) -> ModelConfig:
        """The attention-only model."""
        return parse_model_config(self.baseline_json)


def make_pair(num_tokens: int) -> Pair:
    """Return the pair for requests of `num_tokens` tokens in all."""
    hybrid = _hybrid(_state_size(num_tokens))
    wanted = num_parameters(parse_model_config(hybrid))
    widths = range(MLP_STEP, 8 * HIDDEN_SIZE, MLP_STEP)
    best = min(widths, key=lambda w: abs(num_parameters(parse_model_config(_dense(w))) - wanted))
    return Pair(hybrid, _dense(best))


def _state_size(num_tokens: int) -> int:
    """Return the SSM state size that keeps STATE_SHARE for requests of this length."""
    kv_elements = 2 * ATTENTION["num_key_value_heads"] * ATTENTION["head_dim"] * num_tokens
    per_layer = STATE_SHARE * kv_elements / LAYERS.count("M")
    inner = MAMBA_HEADS * MAMBA_HEAD_DIM
    window = CONV_KERNEL - 1
    # inner * s + window * (inner + 2 * groups * s) elements in a layer
    return max(round((per_layer - window * inner) / (inner + 2 * window * MAMBA_GROUPS)), 2)


def _common() -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN_SIZE,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        **ATTENTION,
    }


def _hybrid(state_size: int) -> dict[str, Any]:
    """Return the config of the hybrid; its MLP is 3.5 times as wide as the residual stream."""
    return hybrid_config(
        LAYERS,
        **_common(),
        intermediate_size=7 * HIDDEN_SIZE // 2,
        mamba_num_heads=MAMBA_HEADS,
        mamba_head_dim=MAMBA_HEAD_DIM,
        ssm_state_size=state_size,
        n_groups=MAMBA_GROUPS,
        conv_kernel=CONV_KERNEL,
    )


def _dense(intermediate_size: int) -> dict[str, Any]:
    """Return the config of the baseline."""
    return _common() | {
        "model_type": "qwen3",
        "num_hidden_layers": NUM_BASELINE_LAYERS,
        "intermediate_size": intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
    }
