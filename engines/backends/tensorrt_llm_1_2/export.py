"""Writes a TensorRT-LLM 1.2 checkpoint, its model class, and what the GPU host runs."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from nemotrt.engines.backends.tensorrt_llm_1_2.checkpoint_config import DTYPE, checkpoint_config
from nemotrt.engines.backends.tensorrt_llm_1_2.conversion import Rank, rank_tensors
from nemotrt.engines.backends.tensorrt_llm_1_2.rank_tensor import write_tensors
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits

CHECKPOINT_FOLDER = "trtllm_checkpoint"
MODEL_FILE = "nemotron_h_model.py"
SCRIPT_FILE = "build_on_host.sh"
# Source: TensorRT-LLM 1.2 commands/build.py and plugin/plugin.py.
SCRIPT = """#!/bin/sh
# Builds the TensorRT engine on the GPU host, with tensorrt_llm 1.2.x. Written by nemotrt; not run.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
exec trtllm-build \\
  --checkpoint_dir "$here/{folder}" \\
  --model_cls_file "$here/{folder}/{model_file}" \\
  --model_cls_name NemotronHForCausalLM \\
  --output_dir "${{1:-$here/engine}}" \\
  --workers {tp_size} \\
  --max_batch_size {limits.max_batch_size} \\
  --max_input_len {limits.chunk_tokens} \\
  --max_seq_len {limits.max_seq_len} \\
  --max_num_tokens {max_num_tokens} \\
  --max_beam_width 1 \\
  --kv_cache_type paged \\
  --gpt_attention_plugin {dtype} \\
  --mamba_conv1d_plugin {dtype} \\
  --gemm_plugin {gemm} \\
  --paged_state enable \\
  --remove_input_padding enable \\
  --use_paged_context_fmha disable \\
  --use_fp8_context_fmha disable
"""


def write_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    limits: Limits,
    compute_capability: str,
    precision: Precision,
    tp_size: int,
    report: Callable[[str], None] = lambda stage: None,
) -> None:
    """Write CHECKPOINT_FOLDER with a file a rank, and SCRIPT_FILE, to `folder`.

    A prompt goes in whole: 1.2 has no chunked context with recurrent state, so a step takes as
    many tokens as the longest prompt has: the limits' chunk.
    """
    target = folder / CHECKPOINT_FOLDER
    target.mkdir()
    text = json.dumps(checkpoint_config(checkpoint, tp_size), indent=1) + "\n"
    (target / "config.json").write_text(text, encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(MODEL_FILE), target / MODEL_FILE)
    for number in range(tp_size):
        report(f"rank {number} of {tp_size}")
        tensors = list(rank_tensors(checkpoint, Rank(number, tp_size), compute_capability))
        write_tensors(target / f"rank{number}.safetensors", tensors)
    script = folder / SCRIPT_FILE
    text = SCRIPT.format(
        folder=CHECKPOINT_FOLDER,
        model_file=MODEL_FILE,
        tp_size=tp_size,
        limits=limits,
        max_num_tokens=limits.chunk_tokens + limits.max_batch_size,
        dtype=DTYPE,
        gemm="fp8" if precision is Precision.FP8 else DTYPE,
    )
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)


def notes(checkpoint: Checkpoint, tp_size: int) -> dict[str, str | int | float | bool]:
    """Return what a manifest says of the engine's arithmetic."""
    return {
        "tp_size": tp_size,
        "ssm_state": DTYPE,
        "kv_cache": "fp8" if checkpoint.quant.has_fp8_cache else DTYPE,
        "model_class": f"{CHECKPOINT_FOLDER}/{MODEL_FILE}",
    }


def host_command(folder: Path) -> str:
    """Return what to run on the GPU host."""
    return shlex.quote(str(folder / SCRIPT_FILE))
