"""Writes what `trtllm-serve` or `LLM(...)` needs beside the checkpoint, which stays where it is."""

import shlex
from pathlib import Path

from nemotrt.engines.artefact.manifest import WeightInput
from nemotrt.engines.backends.protocol.compute_capability import has_fp8
from nemotrt.engines.backends.protocol.options import TP_SIZES
from nemotrt.engines.backends.tensorrt_llm.llm_args import llm_args, to_yaml, with_reuse
from nemotrt.engines.backends.tensorrt_llm.lora import lora_config
from nemotrt.engines.backends.tensorrt_llm.options import TensorRTLLMOptions
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.lora.merging import USUAL_RANK
from nemotrt.engines.checkpoint.quantized.scheme import Layout
from nemotrt.engines.checkpoint.stored.tensor_digest import tensor_digests
from nemotrt.engines.checkpoint.stored_head import HEAD, is_flag_wrong
from nemotrt.engines.model.numerics import GROUP_SIZES, Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.text.chat.template import load_chat_template
from nemotrt.engines.text.chat.turn import turn_openings
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.errors import ConfigError

ARGS_FILE = "llm_args.yaml"  # for every version
REUSE_FILE = "llm_args_reuse.yaml"  # for those that keep recurrent states; not in every bundle


def check(checkpoint: Checkpoint, compute_capability: str, tp: int) -> None:
    """Raise ConfigError unless TensorRT-LLM serves the checkpoint on `tp` of those GPUs.

    Source: TensorRT-LLM's _torch/models/modeling_utils.py: with a tie in config.json, lm_head is
    the embedding and its own tensor is skipped.
    """
    if is_flag_wrong(checkpoint.path, checkpoint.config):
        raise ConfigError(
            f"{checkpoint.path}: config.json ties the head to the embeddings, but stores another "
            f"{HEAD}. TensorRT-LLM believes config.json and would drop it: set "
            "tie_word_embeddings to false there."
        )
    _check_layout(checkpoint)
    _check_cache(checkpoint, compute_capability)
    _check_groups(checkpoint)
    legal = tp_sizes(checkpoint)
    if tp not in legal:
        mamba = checkpoint.config.mamba
        groups = f"; the model's {mamba.num_groups} groups must divide by it" if mamba else ""
        sizes = ", ".join(map(str, legal))
        raise ConfigError(f"--tp-size must be one of {sizes}{groups}; got {tp}.")


def _check_layout(checkpoint: Checkpoint) -> None:
    """Raise ConfigError unless it reads these codes, for it opens the folder itself.

    Source: docs/reference/formats.md, what the loaders take.
    """
    quant = checkpoint.quant
    is_modelopts = quant.layout in (None, Layout.MODELOPT)
    if is_modelopts and (quant.precision is not None or not quant.schemes):
        return
    if quant.layout is Layout.COMPRESSED_TENSORS and quant.precision is Precision.FP8_DYNAMIC:
        return
    raise ConfigError(
        f"{checkpoint.path} is stored as {quant.title}, for which backend tensorrt-llm writes no "
        "bundle: TensorRT-LLM opens the folder itself. Give one that nemotrt quantize wrote with "
        "--format modelopt, or run trtllm-serve on this folder where its release takes it."
    )


def _check_cache(checkpoint: Checkpoint, compute_capability: str) -> None:
    """Raise ConfigError unless the GPU has the KV cache that the checkpoint asks for.

    Source: TensorRT-LLM's model_loader.py: dtype `auto` takes the checkpoint's own, and no dtype
    gives 16 bits to a checkpoint that asks for less.
    """
    algo = checkpoint.quant.kv_cache_algo
    if algo is None:
        return
    if algo != "FP8":
        raise ConfigError(
            f"the checkpoint asks for a {algo} KV cache, which backend tensorrt-llm lacks; "
            "quantize it with --kv-cache none or fp8."
        )
    if not has_fp8(compute_capability):
        raise ConfigError(
            f"the checkpoint asks for an FP8 KV cache, which TensorRT-LLM gives it whatever the "
            f"GPU; compute capability {compute_capability} has no FP8. Quantize it with "
            "--kv-cache none."
        )


def _check_groups(checkpoint: Checkpoint) -> None:
    """Raise ConfigError unless its kernels have the groups of an int4 checkpoint.

    Source: TensorRT-LLM's fpA_intB_gemm, which has groups of 64 and 128.
    """
    found = sorted(checkpoint.quant.group_sizes.difference(GROUP_SIZES[1:]))
    if found:
        sizes = " or ".join(map(str, GROUP_SIZES[1:]))
        raise ConfigError(
            f"the checkpoint has groups of {found[0]} inputs, TensorRT-LLM's kernels take {sizes}: "
            "quantize it with --group-size."
        )


def tp_sizes(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Return how many GPUs may share the model: Mamba's groups and the heads must divide."""
    config = checkpoint.config
    counts = [config.num_attention_heads]
    if config.mamba is not None:
        counts += [config.mamba.num_groups, config.mamba.num_heads]
    return tuple(size for size in TP_SIZES if not any(count % size for count in counts))


def write_bundle(
    checkpoint: Checkpoint,
    folder: Path,
    limits: Limits,
    compute_capability: str,
    options: TensorRTLLMOptions,
) -> None:
    """Write ARGS_FILE to `folder`, with the KV cache that the checkpoint asks for.

    Beside it REUSE_FILE, where the planner says how a hybrid's prefixes are reused.

    Raises:
        ConfigError: the GPU has no such cache.
    """
    _check_cache(checkpoint, compute_capability)
    args = llm_args(limits, has_fp8_cache=checkpoint.quant.has_fp8_cache, options=options)
    if options.max_loras is not None:
        rank = options.max_lora_rank or USUAL_RANK
        args = args.with_lora(lora_config(checkpoint.config, options.max_loras, rank))
    (folder / ARGS_FILE).write_text(to_yaml(args), encoding="utf-8")
    if options.planned_snapshots is not None:
        offset = opening_tokens(checkpoint.path)
        reusing = with_reuse(args, options.planned_snapshots, offset)
        (folder / REUSE_FILE).write_text(to_yaml(reusing), encoding="utf-8")


def opening_tokens(folder: Path) -> int:
    """Return how many tokens a chat's prompt has behind its last message, at most.

    The next turn's prompt has all before them; what follows may be written otherwise there, such as
    an answer without its trace. 0 where the checkpoint has no chat template.
    """
    template, tokenizer = load_chat_template(folder), load_tokenizer(folder)
    if template is None or tokenizer is None:
        return 0
    openings = turn_openings(template)
    return max(len(tokenizer.encode(text, add_special_tokens=False)) for text in openings)


def weight_entries(checkpoint: Checkpoint) -> dict[str, WeightInput]:
    """Return what engine.json says of each tensor that TensorRT-LLM reads of the checkpoint."""
    names = checkpoint.used_names()
    refs = [checkpoint[name] for name in names]
    return {
        name: WeightInput(tensor=name, dtype=ref.dtype, shape=ref.shape, sha256=sha256)
        for name, ref, sha256 in zip(names, refs, tensor_digests(refs), strict=True)
    }


def serve_command(checkpoint: str, folder: Path) -> str:
    """Return the command that serves the bundle without nemotrt."""
    options = str((folder / ARGS_FILE).absolute())
    words = ["trtllm-serve", str(Path(checkpoint).absolute()), "--extra_llm_api_options", options]
    return shlex.join(words)
