"""What TensorRT Edge-LLM builds this model for, and why not the rest.

Sources: tensorrt-edgellm 0.11.0: its wheel's payloads (SM80, 86, 100, 120), cpp/CMakeLists.txt (89
from source), cpp/plugins/mamba (16-bit floats alone), and the maintainers on SM90: no attention
kernels (NVIDIA/TensorRT-Edge-LLM#64).
"""

from typing import TYPE_CHECKING

from nemotrt.engines.backends.protocol.compute_capability import FIRST_FP8, has_fp8
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError

if TYPE_CHECKING:  # numpy stays out: the planner asks for a GPU's precisions too
    from nemotrt.engines.checkpoint.checkpoint import Checkpoint
    from nemotrt.engines.runtime.engine import Limits

CAPABILITIES = ("8.0", "8.6", "8.9", "10.0", "12.0")
PRECISIONS = (Precision.BF16, Precision.INT8_SQ, Precision.FP8)
HEAD_DIMS = (32, 64, 128)  # of its fused attention
MAX_QUERIES_PER_KV_HEAD = 8
INSTEAD = {
    Precision.INT8_WO: "its exporter would take the codes for weights; use int8-sq or bf16",
    Precision.FP8_DYNAMIC: "it has static FP8 scales only; use fp8",
}


def check_gpu(compute_capability: str, precision: Precision) -> None:
    """Raise ConfigError unless Edge-LLM makes engines of that precision for that GPU."""
    if compute_capability not in CAPABILITIES:
        raise ConfigError(
            f"Edge-LLM has no attention kernels for compute capability {compute_capability}; it "
            f"has them for {', '.join(CAPABILITIES)}. For H100 use --backend tensorrt-llm."
        )
    if precision not in PRECISIONS:
        why = INSTEAD.get(precision, f"it has {', '.join(PRECISIONS)}")
        raise ConfigError(f"backend edge-llm does not take {precision}: {why}.")
    if precision is Precision.FP8 and not has_fp8(compute_capability):
        raise ConfigError(
            f"compute capability {compute_capability} has no FP8 arithmetic; "
            "use a checkpoint in int8-sq or bf16."
        )


def check(checkpoint: "Checkpoint", compute_capability: str, precision: Precision) -> None:
    """Raise ConfigError unless Edge-LLM makes an engine of the checkpoint for that GPU."""
    check_gpu(compute_capability, precision)
    if checkpoint.quant.kv_cache_algo is not None and not has_fp8(compute_capability):
        raise ConfigError(
            f"the checkpoint asks for a {checkpoint.quant.kv_cache_algo} KV cache, which Edge-LLM "
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
    if checkpoint.quant.precision is Precision.INT8_WO:
        raise ConfigError(f"backend edge-llm does not take int8-wo: {INSTEAD[Precision.INT8_WO]}.")
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
    kv_cache = "fp8" if checkpoint.quant.kv_cache_algo == "FP8" else "fp16"
    return {
        "activations": "fp16",
        "ssm_state": "fp16",
        "kv_cache": kv_cache,
        "max_input_len": limits.chunk_tokens,
    }
