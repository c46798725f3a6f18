"""A GGUF file's metadata as the config.json that its model would have on the hub."""

from collections import Counter
from typing import Any

import numpy as np

from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD
from nemotrt.engines.checkpoint.gguf.file import GgufFile
from nemotrt.engines.checkpoint.gguf.keys import (
    BLOCK_COUNT,
    EPSILON,
    FLAGS,
    KEYS,
    NUMBERS,
    RMS_EPSILON,
    Key,
)
from nemotrt.engines.checkpoint.gguf.names import MODEL_TYPES
from nemotrt.engines.checkpoint.gguf.tensors import check_architecture
from nemotrt.errors import ArtefactError, ConfigError

# What says that a block is of that kind, in the letters of hybrid_override_pattern.
KINDS = {
    "ssm_in.weight": "M",
    "attn_q.weight": "*",
    "ffn_up.weight": "-",
    "ffn_gate_inp.weight": "E",
}
NEXT_TOKENS = "nextn_predict_layers"  # blocks of multi-token prediction, behind the model's own


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
        "model_type": MODEL_TYPES[architecture],
        "vocab_size": embeddings.shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "torch_dtype": "bfloat16",
    }
    for key in KEYS[architecture]:
        if key.field and key.field not in config and not (key.is_optional and not read.has(key)):
            config[key.field] = read.value(key)
    eos = file.metadata.get("tokenizer.ggml.eos_token_id")
    if eos is not None:
        config["eos_token_id"] = eos
    if architecture == "qwen3":
        config["architectures"] = ["Qwen3ForCausalLM"]
        config["num_hidden_layers"] = read.size(BLOCK_COUNT)
    else:
        config |= _nemotron_h(file, read)
    if told := _quantization(file):
        config["quantization_config"] = told
    return config


def _nemotron_h(file: GgufFile, read: "_Metadata") -> dict[str, Any]:
    heads, inner = read.size("ssm.time_step_rank"), read.size("ssm.inner_size")
    if inner % heads:
        raise ArtefactError(f"{file.path}: ssm.inner_size {inner} is no multiple of {heads} heads.")
    if not any(read.has(key) for key in KEYS["nemotron_h"] if key.name in (EPSILON, RMS_EPSILON)):
        read.number(EPSILON)  # raises: it is missing
    if file.metadata.get(f"{file.architecture}.{NEXT_TOKENS}"):
        raise ConfigError(
            f"{file.path} has blocks of multi-token prediction, which are not read: convert the "
            "checkpoint again with convert_hf_to_gguf.py --no-mtp."
        )
    return {
        "architectures": ["NemotronHForCausalLM"],
        "hybrid_override_pattern": _pattern(file, read.size(BLOCK_COUNT)),
        "mamba_head_dim": inner // heads,
    }


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

    def has(self, key: Key) -> bool:
        """Whether the file has it."""
        return f"{self._architecture}.{key.name}" in self._file.metadata

    def value(self, key: Key) -> int | float | bool:
        """Return the value of a key, of the kind that a config.json has."""
        if key.field in FLAGS:
            return self._flag(key.name)
        return self.number(key.name) if key.field in NUMBERS else self.size(key.name)

    def size(self, key: str) -> int:
        """Return a positive integer; of an array, one for each block, its largest."""
        value = self._file.get(f"{self._architecture}.{key}")
        if isinstance(value, np.ndarray):
            value = int(value.max(initial=0))
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self._fault(key, value)
        return value

    def number(self, key: str) -> float:
        """Return a positive number."""
        value = self._file.get(f"{self._architecture}.{key}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._fault(key, value)
        return float(str(np.float32(value)))  # as it was before it was stored in 32 bits

    def _flag(self, key: str) -> bool:
        value = self._file.get(f"{self._architecture}.{key}")
        if not isinstance(value, bool):
            raise self._fault(key, value, "true or false")
        return value

    def _fault(self, key: str, value: Any, wanted: str = "positive number") -> ArtefactError:
        return ArtefactError(
            f"{self._file.path}: {self._architecture}.{key} is {value!r}, no {wanted}."
        )
