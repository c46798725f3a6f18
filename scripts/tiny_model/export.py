"""Writes a trained model as a Hugging Face folder with bf16 weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from shapes import CONFIGS, GENERATION


def export(kind: str, checkpoint: Path, folder: Path) -> None:
    """Writes config, generation config and weights of `checkpoint` into `folder`, atomically."""
    state = torch.load(checkpoint, weights_only=False)["model"]
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    files = {"config.json": CONFIGS[kind], "generation_config.json": GENERATION}
    for name, value in files.items():
        temporary = folder / f".{name}.tmp"
        temporary.write_text(json.dumps(value, indent=2) + "\n")
        temporary.replace(folder / name)
    temporary = folder / ".model.safetensors.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(folder / "model.safetensors")
