"""The two models' configurations, in the spelling of their files on the hub."""

from __future__ import annotations

from typing import Any

from tokenizer import MAX_POSITIONS, VOCAB_SIZE

SPECIALS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 12, "pad_token_id": 12}

# The awkward traits of the 9B, kept: head_dim 80, a state of 128, several groups, heads * head_dim
# unlike hidden_size in attention and in the mixer, no rotary embedding, an untied head.
NEMOTRON_H: dict[str, Any] = {
    "architectures": ["NemotronHForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    **SPECIALS,
    "chunk_size": 128,
    "conv_kernel": 4,
    "expand": 2,
    "head_dim": 64,
    "hidden_dropout": 0.0,
    "hidden_size": 256,
    "hybrid_override_pattern": "M-M*-M-M*-",
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "layer_norm_epsilon": 1e-05,
    "mamba_head_dim": 80,
    "mamba_hidden_act": "silu",
    "mamba_num_heads": 6,
    "mamba_proj_bias": False,
    "max_position_embeddings": MAX_POSITIONS,
    "mlp_bias": False,
    "mlp_hidden_act": "relu2",
    "model_type": "nemotron_h",
    "n_groups": 2,
    "num_attention_heads": 6,
    "num_hidden_layers": 10,
    "num_key_value_heads": 2,
    "num_logits_to_keep": 1,
    "rescale_prenorm_residual": True,
    "residual_in_fp32": False,
    "rms_norm_eps": 1e-05,
    "sliding_window": None,
    "ssm_state_size": 128,
    "tie_word_embeddings": False,
    "time_step_floor": 0.0001,
    "time_step_limit": [0.0, float("inf")],
    "time_step_max": 0.1,
    "time_step_min": 0.001,
    "time_step_rank": 256,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "use_cache": True,
    "use_conv_bias": True,
    "use_mamba_kernels": True,
    "vocab_size": VOCAB_SIZE,
}

QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    **SPECIALS,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "max_position_embeddings": MAX_POSITIONS,
    "max_window_layers": 6,
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": VOCAB_SIZE,
}

GENERATION: dict[str, Any] = {
    "bos_token_id": 1,
    "eos_token_id": [2, 11, 12],
    "pad_token_id": 12,
}

CONFIGS: dict[str, dict[str, Any]] = {"nemotron_h": NEMOTRON_H, "qwen3": QWEN3}
