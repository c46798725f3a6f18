"""Which models TensorRT Edge-LLM takes, and what its arithmetic is.

Source: tensorrt-edgellm 0.11.0, cpp/plugins/mamba: 16-bit floats alone.
"""

from typing import TYPE_CHECKING

from nemotrt.engines.backends.protocol.compute_capability import FIRST_FP8, has_fp8
from nemotrt.engines.checkpoint.quantized.scheme import Layout
from nemotrt.errors import ConfigError

if TYPE_CHECKING:  # numpy stays out: the planner asks for a GPU's precisions too
    from nemotrt.engines.checkpoint.checkpoint import Checkpoint
    from nemotrt.engines.runtime.engine import Limits

HEAD_DIMS = (32, 64, 128)  # of its fused attention
MAX_QUERIES_PER_KV_HEAD = 8


def check(checkpoint: "Checkpoint", compute_capability: str) -> None:
    """Raise ConfigError unless Edge-LLM has the checkpoint's cache on that GPU, and its model."""
    quant = checkpoint.quant
    if quant.layout not in (None, Layout.MODELOPT) or (quant.schemes and quant.precision is None):
        raise ConfigError(
            f"{checkpoint.path} is stored as {quant.title}; Edge-LLM's exporter reads the folder "
            "itself, floats or ModelOpt's layout: nemotrt quantize --format modelopt."
        )
    if quant.kv_cache_algo is not None and not has_fp8(compute_capability):
        raise ConfigError(
            f"the checkpoint asks for a {quant.kv_cache_algo} KV cache, which Edge-LLM "
            f"has from compute capability {FIRST_FP8}; quantize it with --kv-cache none."
        )
    _check_model(checkpoint)


def _check_model(checkpoint: "Checkpoint") -> None:
    """Raise ConfigError unless the model is one that its plugins take."""
    config = checkpoint.config
    if config.mamba is None:
        raise ConfigError(
            "backend edge-llm is for nemotron_h here; dense models go to Edge-LLM's own commands."
        )
    if config.num_attention_layers and config.head_dim not in HEAD_DIMS:
        raise ConfigError(f"Edge-LLM's attention has head_dim {HEAD_DIMS}; got {config.head_dim}.")
    ratio = config.num_attention_heads / max(config.num_key_value_heads, 1)
    if ratio > MAX_QUERIES_PER_KV_HEAD:
        raise ConfigError(
            f"Edge-LLM's attention takes {MAX_QUERIES_PER_KV_HEAD} query heads a KV head at most; "
            f"the model has {ratio:g}."
        )
    if config.mamba.is_dt_limited:
        raise ConfigError("Edge-LLM does not clamp the time step; the model's config asks for it.")


def notes(checkpoint: "Checkpoint", limits: "Limits") -> dict[str, str | int | float | bool]:
    """Return what a manifest says of the engine's arithmetic."""
    return {
        "activations": "fp16",
        "ssm_state": "fp16",
        "kv_cache": "fp8" if checkpoint.quant.has_fp8_cache else "fp16",
        "max_input_len": limits.chunk_tokens,
    }
