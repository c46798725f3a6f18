"""Adapters with random weights: those that PEFT itself makes and saves, and the like without it."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.engines.runtime.engine import Limits
from support.reference import without_clamp

HYBRID = ["in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)  # of engines
DENSE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def float32_copy(folder: Path, target: Path) -> Path:
    """Write a checkpoint in float32, which a sum of small numbers does not round."""
    shutil.copytree(folder, target)
    for path in target.glob("*.safetensors"):
        save_file({k: v.float() for k, v in load_file(path).items()}, path, {"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config |= {key: "float32"} if key in config else {}
    (target / "config.json").write_text(json.dumps(config))
    return target


def base_model(folder: Path) -> Any:
    """Return a checkpoint's model in float32, without transformers' clamp of time steps."""
    return without_clamp(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


def peft_model(folder: Path, seed: int = 0, size: float = 0.2, **config: Any) -> Any:
    """Return a checkpoint's model in float32 with a new adapter, none of whose weights is zero."""
    import peft

    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"} | config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base_model(folder), peft.LoraConfig(**settings))
    for name, value in model.named_parameters():
        if "lora_magnitude" in name:
            value.data *= 1 + size * torch.rand_like(value)
        elif "lora_" in name:
            value.data = size * torch.randn_like(value)
    return model.eval()


def save_adapter(folder: Path, target: Path, **config: Any) -> Path:
    """Write an adapter as PEFT does; return its folder."""
    model = peft_model(folder, **config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for the base model on the hub
        model.save_pretrained(target, save_embedding_layers=False)
    return target


def write_adapter(
    folder: Path, target: Path, seed: int = 0, size: float = 0.2, **config: Any
) -> Path:
    """Write what PEFT would of an adapter for these linears, with less in its config."""
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"} | config
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, shape in expected_shapes(open_checkpoint(folder).config).items():
        module = name.removesuffix(".weight").replace("backbone.", "model.")
        if module.rpartition(".")[2] in settings["target_modules"]:
            sizes = {"lora_A": (settings["r"], shape[1]), "lora_B": (shape[0], settings["r"])}
            tensors |= {
                f"base_model.model.{module}.{part}.weight": size
                * torch.randn(of_part, generator=generator)
                for part, of_part in sizes.items()
            }
    target.mkdir()
    save_file(tensors, target / "adapter_model.safetensors")
    (target / "adapter_config.json").write_text(json.dumps(settings))
    return target


def loaded(folder: Path, *adapters: Path) -> Any:
    """Return a checkpoint's model in float32 with adapters as PEFT loads them, a0, a1, ..."""
    return with_adapters(base_model(folder), *adapters)


def with_adapters(model: Any, *adapters: Path) -> Any:
    """Return a model with adapters as PEFT loads them, a0, a1, ..."""
    import peft

    for number, adapter in enumerate(adapters):
        name = f"a{number}"
        if number == 0:
            model = peft.PeftModel.from_pretrained(model, adapter, adapter_name=name)
        else:
            model.load_adapter(adapter, adapter_name=name)
    return model.eval()


def edit_config(adapter: Path, **changes: Any) -> None:
    """Change what an adapter's config says."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(adapter: Path, spell: Callable[[str], str]) -> None:
    """Give an adapter's tensors other names."""
    tensors = {spell(name): value for name, value in stored(adapter).items()}
    save_file(tensors, adapter / "adapter_model.safetensors")


def stored(adapter: Path) -> dict[str, torch.Tensor]:
    """Return an adapter's tensors."""
    return load_file(adapter / "adapter_model.safetensors")
