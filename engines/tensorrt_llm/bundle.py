"""Writes what `trtllm-serve` or `LLM(...)` needs beside the checkpoint, which stays where it is."""

import shlex
from pathlib import Path

import yaml

from nemotrt.engines.checkpoint import Checkpoint
from nemotrt.engines.engine import Limits
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensorrt.flavour import FP8_CAPABILITY, capability_number
from nemotrt.engines.tensorrt_llm.llm_args import check_names, llm_args
from nemotrt.errors import ConfigError

ARGS_FILE = "llm_args.yaml"
PRECISIONS = (Precision.BF16, Precision.INT8_WO, Precision.FP8, Precision.FP8_DYNAMIC)
TP_SIZES = (1, 2, 4, 8)


def check(checkpoint: Checkpoint, compute_capability: str, precision: Precision, tp: int) -> None:
    """Raise ConfigError unless TensorRT-LLM serves the checkpoint on that GPU.

    Source: docs/quantization.md, what the loaders take.
    """
    if precision is Precision.INT8_SQ:
        raise ConfigError(
            "TensorRT-LLM's PyTorch backend has no INT8 W8A8 linears; use a checkpoint in int8-wo, "
            "or --backend tensorrt, which runs int8-sq."
        )
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise ConfigError(f"backend tensorrt-llm has no precision {precision}; it has {names}.")
    is_fp8 = precision in (Precision.FP8, Precision.FP8_DYNAMIC)
    if is_fp8 and capability_number(compute_capability) < FP8_CAPABILITY:
        raise ConfigError(
            f"compute capability {compute_capability} has no FP8 arithmetic; "
            "use a checkpoint in int8-wo or bf16."
        )
    mamba = checkpoint.config.mamba
    if tp not in TP_SIZES or (mamba is not None and mamba.num_groups % tp):
        groups = f"; the model's {mamba.num_groups} groups must divide by it" if mamba else ""
        raise ConfigError(f"--tp-size must be one of {TP_SIZES}{groups}; got {tp}.")


def write_bundle(
    checkpoint: Checkpoint, folder: Path, limits: Limits, compute_capability: str, tp_size: int
) -> None:
    """Write ARGS_FILE to `folder`; an FP8 KV cache only where the GPU computes in FP8."""
    is_fp8_gpu = capability_number(compute_capability) >= FP8_CAPABILITY
    has_fp8_cache = checkpoint.quant.kv_cache_algo == "FP8" and is_fp8_gpu
    args = llm_args(limits, has_fp8_cache=has_fp8_cache, tp_size=tp_size)
    check_names(args)
    text = yaml.safe_dump(args, sort_keys=False)
    (folder / ARGS_FILE).write_text(text, encoding="utf-8")


def serve_command(checkpoint: str, folder: Path) -> str:
    """Return the command that serves the bundle on the GPU host."""
    words = ["trtllm-serve", checkpoint, "--extra_llm_api_options", str(folder / ARGS_FILE)]
    return shlex.join(words)
