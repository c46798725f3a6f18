"""A random checkpoint of either architecture, written by safetensors' own writer."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.tensor_names import expected_shapes

NEMOTRON_H: dict[str, Any] = {
    "model_type": "nemotron_h",
    "architectures": ["NemotronHForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 32,
    "hybrid_override_pattern": "M-MM*-",
    "num_hidden_layers": 6,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "ssm_state_size": 16,
    "n_groups": 2,
    "conv_kernel": 4,
    "chunk_size": 16,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
}
QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
CONFIGS = {"nemotron_h": NEMOTRON_H, "qwen3": QWEN3}
MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCheckpoint]:
    """Return a function that writes a checkpoint; `edit` may change its tensors first."""

    def make(
        model_type: str = "nemotron_h",
        num_shards: int = 3,
        edit: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        raw = CONFIGS[model_type]
        (folder / "config.json").write_text(json.dumps(raw))
        (folder / "tokenizer.json").write_text('{"version": "1.0"}')
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        (folder / "generation_config.json").write_text('{"eos_token_id": 11}')
        generator = torch.Generator().manual_seed(0)
        tensors = {
            name: (torch.randn(shape, generator=generator) * 0.05).to(dtype)
            for name, shape in expected_shapes(parse_model_config(raw)).items()
        }
        edit(tensors)
        _save(folder, tensors, num_shards)
        return folder

    yield make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    """A random bfloat16 Nemotron-H checkpoint in three shards; do not change it."""
    return make_checkpoint()


def _save(folder: Path, tensors: dict[str, torch.Tensor], num_shards: int) -> None:
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names = list(tensors)
    weight_map = {}
    for number in range(num_shards):
        file_name = f"model-{number + 1:05}-of-{num_shards:05}.safetensors"
        part = names[number::num_shards]
        save_file({name: tensors[name] for name in part}, folder / file_name)
        weight_map.update(dict.fromkeys(part, file_name))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
