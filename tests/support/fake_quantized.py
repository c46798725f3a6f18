"""Hugging Face transformers as the oracle of a quantized checkpoint: inputs rounded by hooks."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from support.reference import without_clamp


def load(source: Path, quantized: Path) -> Any:
    """Return `source`'s float32 model with the tensors and the arithmetic of `quantized`."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    without_clamp(model).eval()
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(quantized.glob("*.safetensors")):
        tensors |= load_file(shard)
    hub = {name: name.replace("model.", "backbone.", 1) for name, _ in model.named_parameters()}
    hub = {name: value.replace("embed_tokens", "embeddings") for name, value in hub.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = tensors[hub[name]].float()
            module = hub[name].removesuffix(".weight")
            scale = tensors.get(f"{module}.weight_scale")
            if scale is not None:
                values = values * (scale[:, None] if scale.dim() else scale)
            parameter.copy_(values)
            if f"{module}.input_scale" in tensors:
                linear = model.get_submodule(name.removesuffix(".weight"))
                code_type = tensors[hub[name]].dtype
                smooth = tensors.get(f"{module}.pre_quant_scale")
                linear.register_forward_pre_hook(
                    _rounding(tensors[f"{module}.input_scale"], code_type, smooth)
                )
    return model


def _rounding(scale: torch.Tensor, code_type: torch.dtype, smooth: torch.Tensor | None) -> Any:
    def hook(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x = inputs[0] if smooth is None else inputs[0] * smooth.float()
        if code_type == torch.int8:
            codes = (x / scale).round().clamp(-128, 127)
        else:
            codes = (x / scale).clamp(-448, 448).to(code_type).float()
        return (codes * scale,)

    return hook
