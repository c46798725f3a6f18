"""The arguments of `tensorrt_llm.LLM` that a bundle sets, checked against the names it has.

Source: TensorRT-LLM tests/unittest/api_stability/references/llm.yaml and docs of 1.2.x and
1.3.0rc26. Not executed: no GPU.
"""

from collections.abc import Mapping
from typing import Any

from nemotrt.engines.engine import Limits
from nemotrt.errors import unknown_name

LLM_ARGS = (
    "attn_backend",
    "cuda_graph_config",
    "disable_overlap_scheduler",
    "dtype",
    "enable_chunked_prefill",
    "enable_iter_perf_stats",
    "kv_cache_config",
    "max_batch_size",
    "max_beam_width",
    "max_input_len",
    "max_num_tokens",
    "max_seq_len",
    "model",
    "moe_config",
    "pipeline_parallel_size",
    "print_iter_log",
    "reasoning_parser",
    "sampler_type",
    "scheduler_config",
    "speculative_config",
    "stream_interval",
    "tensor_parallel_size",
    "tokenizer",
    "torch_compile_config",
    "trust_remote_code",
)
NESTED = {
    "cuda_graph_config": ("batch_sizes", "enable_padding", "max_batch_size"),
    "kv_cache_config": (
        "dtype",
        "enable_block_reuse",
        "free_gpu_memory_fraction",
        "mamba_ssm_cache_dtype",
        "max_tokens",
        "tokens_per_block",
    ),
}
# Source: NVIDIA's deployment cookbook for this model family, TensorRT-LLM section.
FREE_GPU_MEMORY_FRACTION = 0.8


def llm_args(limits: Limits, *, has_fp8_cache: bool, tp_size: int = 1) -> dict[str, Any]:
    """Return the arguments, beside `model`, for an engine of these limits.

    Prefix reuse is off: the recurrent state of a prefix is not kept. The SSM state stays float32,
    as the model card asks.
    """
    return {
        "tensor_parallel_size": tp_size,
        "max_batch_size": limits.max_batch_size,
        "max_seq_len": limits.max_seq_len,
        "max_num_tokens": limits.max_batch_size + limits.chunk_tokens,
        "max_beam_width": 1,
        "enable_chunked_prefill": True,
        "kv_cache_config": {
            "enable_block_reuse": False,
            "free_gpu_memory_fraction": FREE_GPU_MEMORY_FRACTION,
            "mamba_ssm_cache_dtype": "float32",
            "dtype": "fp8" if has_fp8_cache else "auto",
        },
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": limits.max_batch_size},
    }


def check_names(args: Mapping[str, Any]) -> None:
    """Raise ConfigError if TensorRT-LLM has no argument of a name."""
    for name, value in args.items():
        if name not in LLM_ARGS:
            raise unknown_name("argument of tensorrt_llm.LLM", name, LLM_ARGS)
        if isinstance(value, Mapping):
            for inner in value:
                if inner not in NESTED.get(name, ()):
                    raise unknown_name(f"key of {name}", inner, NESTED.get(name, ()))
