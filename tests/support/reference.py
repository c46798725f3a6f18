"""The independent oracle: random checkpoints written and run by Hugging Face transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

torch.set_num_threads(1)  # small models: threads only wait for each other


def from_folder(folder: Path) -> Any:
    """Return the float32 model in a checkpoint folder, as transformers loads it."""
    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return without_clamp(model).eval()


def nemotron_h(layers: str = "M-*M-", seed: int = 0, **changes: Any) -> NemotronHForCausalLM:
    """Return a random float32 Nemotron-H; `layers` in the hub's letters."""
    words = {"M": "linear_attention", "-": "mlp", "*": "full_attention", "E": "moe"}
    sizes = {
        "vocab_size": 96,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "mamba_num_heads": 4,
        "mamba_head_dim": 20,
        "ssm_state_size": 16,
        "n_groups": 2,
        "conv_kernel": 4,
        "chunk_size": 8,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 28,
        "moe_shared_expert_intermediate_size": 40,
        "max_position_embeddings": 512,
    }
    config = NemotronHConfig(layers_block_type=[words[c] for c in layers], **sizes | changes)
    config._experts_implementation = "eager"  # the default asks for aligned widths
    return lively(without_clamp(NemotronHForCausalLM(config)), seed)


def qwen3(num_layers: int = 2, seed: int = 0, **changes: Any) -> Qwen3ForCausalLM:
    """Return a random float32 Qwen3."""
    sizes = {
        "vocab_size": 96,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
    }
    return lively(
        Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=num_layers, **sizes | changes)), seed
    )


def without_clamp(model: Any, limit: tuple[float, float] = (0.0, float("inf"))) -> Any:
    """Set the time-step limit: transformers clamps dt at 0.001 in its chunk scan only.

    The released model's own code does not, nor does any serving engine.
    """
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = limit
    return model


def lively(model: Any, seed: int) -> Any:
    """Draw weights large enough that every layer matters to the logits.

    They are exact in bfloat16, as released weights are, so that a graph that stores some of them
    in bfloat16 has the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(("A_log", "dt_bias")):
                parameter.copy_(noise)
            elif name.endswith(("norm.weight", "norm_f.weight", ".D", "layernorm.weight")):
                parameter.copy_(1 + 0.2 * noise)
            else:
                fan_in = parameter.shape[-1] if parameter.dim() > 1 else 4
                parameter.copy_(noise * fan_in**-0.5)
            parameter.copy_(parameter.bfloat16().float())
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):  # float32 in released checkpoints
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
    return model.eval()


def save(model: Any, folder: Path, **options: Any) -> Path:
    """Write the model as a checkpoint folder."""
    model.save_pretrained(folder, **options)
    return folder


def load(folder: Path) -> Any:
    """Load a checkpoint folder in float32, with the time-step clamp off."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return without_clamp(model).eval()


def logits(model: Any, tokens: list[int]) -> np.ndarray:
    """Return the logits of every position, [tokens, vocab], in one forward pass."""
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
