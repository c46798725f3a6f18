"""A GGUF file's metadata as the config.json that its model would have on the hub.

Source: llama.cpp's gguf-py/gguf/constants.py, Keys, and the converters' set_gguf_parameters.
"""

from collections import Counter
from typing import Any

import numpy as np

from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD
from nemotrt.engines.checkpoint.gguf.file import GgufFile
from nemotrt.engines.checkpoint.gguf.tensors import check_architecture
from nemotrt.errors import ArtefactError

# What says that a block is of that kind, in the letters of hybrid_override_pattern.
KINDS = {"ssm_in.weight": "M", "attn_q.weight": "*", "ffn_up.weight": "-"}


def config_of(file: GgufFile) -> dict[str, Any]:
    """Return the config.json.

    Raises:
        ArtefactError: the metadata lacks something, or contradicts the tensors.
        ConfigError: it is an architecture that is not read.
    """
    architecture = check_architecture(file)
    read = _Metadata(file, architecture)
    embeddings = file.tensors.get("token_embd.weight")
    if embeddings is None or len(embeddings.shape) != 2:
        raise ArtefactError(f"{file.path}: token_embd.weight is missing, or no matrix.")
    config: dict[str, Any] = {
        "model_type": architecture,
        "vocab_size": embeddings.shape[0],
        "hidden_size": read.size("embedding_length"),
        "intermediate_size": read.size("feed_forward_length"),
        "num_attention_heads": read.size("attention.head_count"),
        "num_key_value_heads": read.size("attention.head_count_kv"),
        "head_dim": read.size("attention.key_length"),
        "max_position_embeddings": read.size("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "torch_dtype": "bfloat16",
    }
    eos = file.metadata.get("tokenizer.ggml.eos_token_id")
    if eos is not None:
        config["eos_token_id"] = eos
    if architecture == "qwen3":
        config |= _qwen3(read)
    else:
        config |= _nemotron_h(file, read)
    if told := _quantization(file):
        config["quantization_config"] = told
    return config


def _qwen3(read: "_Metadata") -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "num_hidden_layers": read.size("block_count"),
        "rms_norm_eps": read.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": read.number("rope.freq_base"),
    }


def _nemotron_h(file: GgufFile, read: "_Metadata") -> dict[str, Any]:
    heads, inner = read.size("ssm.time_step_rank"), read.size("ssm.inner_size")
    if inner % heads:
        raise ArtefactError(f"{file.path}: ssm.inner_size {inner} is no multiple of {heads} heads.")
    return {
        "architectures": ["NemotronHForCausalLM"],
        "hybrid_override_pattern": _pattern(file, read.size("block_count")),
        "layer_norm_epsilon": read.number(_epsilon_key(file)),
        "mamba_num_heads": heads,
        "mamba_head_dim": inner // heads,
        "ssm_state_size": read.size("ssm.state_size"),
        "n_groups": read.size("ssm.group_count"),
        "conv_kernel": read.size("ssm.conv_kernel"),
    }


def _epsilon_key(file: GgufFile) -> str:
    """Return where the norms' epsilon is: configs spell it in two ways, and converters follow."""
    key = "attention.layer_norm_rms_epsilon"
    return key if f"nemotron_h.{key}" in file.metadata else "attention.layer_norm_epsilon"


def _pattern(file: GgufFile, num_blocks: int) -> str:
    """Return the kind of each block, by its tensors."""
    if num_blocks > len(file.tensors):
        raise ArtefactError(f"{file.path}: block_count is {num_blocks}, more than its tensors.")
    letters = []
    for number in range(num_blocks):
        found = [letter for leaf, letter in KINDS.items() if f"blk.{number}.{leaf}" in file.tensors]
        if len(found) != 1:
            raise ArtefactError(
                f"{file.path}: block {number} is none of one kind: it has "
                f"{', '.join(found) or 'no mixer'}."
            )
        letters += found
    return "".join(letters)


def _quantization(file: GgufFile) -> dict[str, Any] | None:
    """Return what stands for a quantization_config: how many tensors each type has; None of floats.

    The first is the one with the most bytes.
    """
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for tensor in file.tensors.values():
        if BY_WORD[tensor.kind].decode is not None:
            sizes[tensor.kind] += tensor.num_bytes
            counts[tensor.kind] += 1
    if not sizes:
        return None
    return {
        "quant_method": "gguf",
        "types": {kind: counts[kind] for kind, _ in sizes.most_common()},
    }


class _Metadata:
    """Typed access to an architecture's own keys."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self._file, self._architecture = file, architecture

    def size(self, key: str) -> int:
        """Return a positive integer; of an array, one for each block, its largest."""
        value = self._file.get(f"{self._architecture}.{key}")
        if isinstance(value, np.ndarray):
            value = int(value.max(initial=0))
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self._fault(key, value)
        return value

    def number(self, key: str) -> float:
        value = self._file.get(f"{self._architecture}.{key}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._fault(key, value)
        return float(str(np.float32(value)))  # as it was before it was stored in 32 bits

    def _fault(self, key: str, value: Any) -> ArtefactError:
        return ArtefactError(
            f"{self._file.path}: {self._architecture}.{key} is {value!r}, no positive number."
        )
