"""Whether the head is the embedding: what a checkpoint stores decides, not config.json's flag.

Source: transformers 5.24, modeling_utils.py, tie_weights: a head that is stored and differs from
the embedding is not tied; where only one of the two is stored, it is both.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.hf_config import language_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import model_names
from nemotrt.files.text_file import read_json_object

HEAD = "lm_head.weight"


def settle_head(
    config: ModelConfig, tensors: Mapping[str, TensorRef]
) -> tuple[ModelConfig, dict[str, TensorRef]]:
    """Return the config with the tie that holds, and the tensors with the embedding among them.

    A tied head that is stored all the same is read and compared, which no other tensor is.
    """
    found = dict(tensors)
    embeddings = model_names(config).embeddings
    if not config.tie_word_embeddings or HEAD not in found:
        return config, found
    if embeddings not in found:
        return config, found | {embeddings: found[HEAD]}
    is_tied = found[HEAD].is_same(found[embeddings])
    return dataclasses.replace(config, tie_word_embeddings=is_tied), found


def is_flag_wrong(folder: Path, config: ModelConfig) -> bool:
    """Whether the folder's config.json says a tie that its tensors, hence `config`, don't have."""
    return bool(_raw(folder).get("tie_word_embeddings")) and not config.tie_word_embeddings


def settled_json(folder: Path, config: ModelConfig) -> dict[str, Any]:
    """Return the folder's config.json as an object that says the tie of `config`."""
    raw = _raw(folder)
    return raw | {"tie_word_embeddings": False} if is_flag_wrong(folder, config) else raw


def _raw(folder: Path) -> dict[str, Any]:
    """Return the language model's config.json, which the reader of `config` has checked."""
    path = folder / "config.json"
    return language_config(read_json_object(path), str(path))[0]
