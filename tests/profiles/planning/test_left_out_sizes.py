"""Sizes that a dense model's config.json leaves out are those of its class in transformers."""

import json
from pathlib import Path

import pytest

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.profiles.planning.sources.dense_config import DENSE_TYPES
from nemotrt.profiles.planning.sources.known_models import load_model

# 32 heads, so that the heads of keys and values of every class divide them.
TOLD = {
    "num_hidden_layers": 2,
    "hidden_size": 1536,
    "intermediate_size": 1000,
    "num_attention_heads": 32,
    "vocab_size": 512,
}
IN_TRANSFORMERS = sorted(set(DENSE_TYPES) - {"internlm2"})  # whose class is its repository's own


def read(folder: Path, model_type: str, **changes: object) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **TOLD, **changes}))
    return load_model(str(folder))


@pytest.mark.parametrize("model_type", IN_TRANSFORMERS)
def test_they_are_the_classes(tmp_path: Path, model_type: str) -> None:
    import transformers

    kind = type(transformers.AutoConfig.for_model(model_type))
    config = kind(**TOLD, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    model = read(tmp_path, model_type)
    # GPT-NeoX and Persimmon have no such field, Nemotron's class takes none for all heads
    assert model.num_key_value_heads == (getattr(config, "num_key_value_heads", None) or 32)
    assert model.head_dim == (getattr(config, "head_dim", None) or 1536 // 32)
    assert model.max_position_embeddings == config.max_position_embeddings
    assert model.tie_word_embeddings == config.tie_word_embeddings


@pytest.mark.parametrize("model_type", ["gemma", "mistral", "qwen2", "seed_oss", "internlm2"])
def test_null_means_by_the_other_sizes(tmp_path: Path, model_type: str) -> None:
    """As many heads of keys as of queries, and a head's share of the width."""
    model = read(tmp_path, model_type, num_key_value_heads=None, head_dim=None)
    assert (model.num_key_value_heads, model.head_dim) == (32, 48)


@pytest.mark.parametrize("model_type", ["mistral", "gemma2", "glm", "seed_oss"])
def test_what_a_file_tells_goes_before(tmp_path: Path, model_type: str) -> None:
    model = read(
        tmp_path,
        model_type,
        num_key_value_heads=16,
        head_dim=64,
        max_position_embeddings=777,
        tie_word_embeddings=False,
    )
    assert (model.num_key_value_heads, model.head_dim) == (16, 64)
    assert (model.max_position_embeddings, model.tie_word_embeddings) == (777, False)
