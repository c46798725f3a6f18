"""config.json of a TensorRT-LLM 1.2 checkpoint of this model.

Sources: TensorRT-LLM 1.2 models/modeling_utils.py (PretrainedConfig, QuantConfig) and
cpp/tensorrt_llm/runtime/gptJsonConfig.cpp: recurrent state exists for the architectures of Mamba
and RecurrentGemma alone, and mixes with attention for RecurrentGemma alone, so that is the name;
what the class needs beside rides along as further keys.
"""

from typing import Any

from nemotrt.engines.backends.tensorrt_llm_1_2.conversion import unquantized_modules
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.model_config import LayerKind

ARCHITECTURE = "RecurrentGemmaForCausalLM"
LAYER_TYPES = {
    LayerKind.MAMBA: "recurrent",
    LayerKind.ATTENTION: "attention",
    LayerKind.MLP: "linear",
}
DTYPE = "bfloat16"


def checkpoint_config(checkpoint: Checkpoint, tp_size: int) -> dict[str, Any]:
    """Return the configuration; the SSM state is of DTYPE: 1.2's scan knows no other."""
    config = checkpoint.config
    mamba = config.mamba
    assert mamba is not None  # support.check()
    return {
        "architecture": ARCHITECTURE,
        "dtype": DTYPE,
        "logits_dtype": "float32",
        "num_hidden_layers": len(config.layers),
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_size": config.head_dim,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "hidden_act": "squared-relu",
        "norm_epsilon": config.norm_eps,
        "position_embedding_type": "learned_absolute",
        "max_position_embeddings": config.max_position_embeddings,
        "layer_types": [LAYER_TYPES[kind] for kind in config.layers],
        "rnn_hidden_size": mamba.inner_size,
        "rnn_head_size": mamba.head_dim,
        "rnn_conv_dim_size": mamba.conv_dim,
        "state_size": mamba.state_size,
        "state_dtype": DTYPE,
        "conv_kernel": mamba.conv_kernel,
        "ngroups": mamba.num_groups,
        "chunk_size": mamba.chunk_size,
        "mapping": {"world_size": tp_size, "tp_size": tp_size, "pp_size": 1},
        "quantization": _quantization(checkpoint),
    }


def _quantization(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the quantization; modules are named in full, as a given list replaces the defaults."""
    if checkpoint.quant.precision is None:
        return {"quant_algo": None, "kv_cache_quant_algo": None}
    return {
        "quant_algo": checkpoint.quant.algo,
        "kv_cache_quant_algo": "FP8" if checkpoint.quant.has_fp8_cache else None,
        "exclude_modules": unquantized_modules(checkpoint),
    }
