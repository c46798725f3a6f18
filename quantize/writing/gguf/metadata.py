"""A checkpoint's metadata as llama.cpp's converter writes it.

One value differs: context_length is the model's own, where the converter puts 2^20 for hybrids.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.gguf.header import Stored, Value
from nemotrt.engines.checkpoint.gguf.keys import BLOCK_COUNT, KEYS, SAMPLING, Key
from nemotrt.engines.checkpoint.gguf.names import architecture_of
from nemotrt.engines.checkpoint.hub.origin import origin_of
from nemotrt.engines.model.model_config import PATTERN_LETTERS, ModelConfig
from nemotrt.files.text_file import json_object_if_there
from nemotrt.quantize.writing.gguf.vocabulary import vocabulary

GENERAL: dict[str, Value] = {"general.type": "model", "general.quantization_version": 2}
SIZES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (0.0, "K"))


def metadata_of(
    checkpoint: Checkpoint, file_type: int, tensors: Mapping[str, Stored]
) -> dict[str, Value]:
    """Return the metadata by key.

    Raises:
        ConfigError: the tokenizer is of a kind that a GGUF file can't name.
    """
    model = checkpoint.config
    architecture, origin = architecture_of(model), origin_of(checkpoint.path)
    name = origin.repository.rpartition("/")[2] if origin else checkpoint.path.resolve().name
    found: dict[str, Value] = {
        "general.architecture": architecture,
        "general.name": name,
        "general.size_label": size_label(tensors.values()),
        "general.file_type": file_type,
        **GENERAL,
        **_sampling(checkpoint),
        f"{architecture}.{BLOCK_COUNT}": _num_blocks(model),
    }
    for key in KEYS[architecture]:
        if (value := _value(key, model)) is not None:
            found[f"{architecture}.{key.name}"] = value
    return found | vocabulary(checkpoint.path, model, architecture)


def _num_blocks(model: ModelConfig) -> int:
    """Return llama.cpp's count: attention and MLP of a dense model are one block."""
    return len(model.layers) if model.mamba else model.num_attention_layers


def _value(key: Key, model: ModelConfig) -> Value | None:
    """Return a value; one of a kind of blocks of a hybrid is an array over all blocks."""
    value = key.of(model)
    if not key.letters or model.mamba is None:
        return value
    kinds = [PATTERN_LETTERS[letter] for letter in key.letters]
    return np.array([value if kind in kinds else 0 for kind in model.layers], np.int32)


def _sampling(checkpoint: Checkpoint) -> dict[str, Value]:
    """Return what generation_config.json says of sampling."""
    told = json_object_if_there(checkpoint.path / "generation_config.json")
    found: dict[str, Value] = {}
    for field, key in SAMPLING.items():
        value = told.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = np.int32(value) if field == "top_k" else float(value)
    return found


def size_label(tensors: Iterable[Stored]) -> str:
    """Return how people call a model of these tensors: 8.9B, or 128x2.6B with experts.

    Source: gguf-py/gguf/utility.py, size_label.
    """
    total, experts = 0.0, 0
    for tensor in tensors:
        has_experts = len(tensor.shape) == 3
        experts = tensor.shape[0] if has_experts else experts
        total += float(np.prod(tensor.shape)) / (tensor.shape[0] if has_experts else 1)
    factor, letter = next((least or 1e3, word) for least, word in SIZES if total > least)
    scaled = total / factor
    digits = max(0, 2 - len(str(round(scaled)).lstrip("0")))
    return f"{f'{experts}x' if experts else ''}{scaled:.{digits}f}{letter}"
