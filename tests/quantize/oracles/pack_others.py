"""Run in an environment with llm-compressor: pack random weights as AutoGPTQ and AutoAWQ do.

usage: python pack_others.py OUT.safetensors AUTOGPTQ_QLINEAR_CUDA.py

auto-round, which comes with llm-compressor, has AutoAWQ's packer and GPTQ's second format; the
first is AutoGPTQ's own file. Each case is `CASE.LEAF`, and `CASE.expected` is what the packer's own
layer multiplies an identity by.
"""

import importlib.util
import sys
from typing import Any

import torch
from auto_round.export.export_to_awq.utils import WQLinear_GEMM
from auto_round_extension.torch import qlinear_torch
from safetensors.torch import save_file

ROWS, COLUMNS, GROUP = 32, 64, 16


def quantized(
    bits: int, generator: torch.Generator, order: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """Return a weight, and scales and zero points [rows, groups] that hold it.

    A zero point is 1 at least: AutoGPTQ can't store 0. `order` are the inputs of the groups.
    """
    weight = torch.randn(ROWS, COLUMNS, generator=generator) * 0.1
    groups = (weight if order is None else weight[:, order]).reshape(ROWS, -1, GROUP)
    least, most = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scales = ((most - least) / (2**bits - 2)).half().float()
    return weight, scales, torch.round(-least / scales).clamp(1, 2**bits - 1)


def linear_of(weight: torch.Tensor) -> torch.nn.Linear:
    linear = torch.nn.Linear(COLUMNS, ROWS, bias=False)
    linear.weight.data = weight
    return linear


def first_format(path: str, generator: torch.Generator, found: dict[str, Any]) -> None:
    """Add AutoGPTQ's cases, with the inputs in order and by activation order."""
    spec = importlib.util.spec_from_file_location("qlinear_cuda", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for bits in (4, 8):
        for name in ("", "_desc_act"):
            order = torch.randperm(COLUMNS, generator=generator)
            order = order if name else torch.arange(COLUMNS)
            weight, scales, zeros = quantized(bits, generator, order)
            g_idx = torch.empty(COLUMNS, dtype=torch.int32)
            g_idx[order] = (torch.arange(COLUMNS) // GROUP).int()
            layer = module.QuantLinear(bits, GROUP, COLUMNS, ROWS, False)
            layer.pack(linear_of(weight), scales, zeros, g_idx)
            take(f"gptq_{bits}{name}", layer, ("qweight", "qzeros", "scales", "g_idx"), found)


def take(case: str, layer: Any, leaves: tuple[str, ...], found: dict[str, Any]) -> None:
    """Add a layer's tensors, and what it multiplies an identity by."""
    found |= {f"{case}.{leaf}": getattr(layer, leaf).clone() for leaf in leaves}
    identity = torch.eye(COLUMNS, dtype=layer.scales.dtype)
    with torch.no_grad():
        found[f"{case}.expected"] = layer(identity).T.float().contiguous()


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    first_format(sys.argv[2], generator, found)
    for bits in (4, 8):
        weight, scales, zeros = quantized(bits, generator)
        layer = qlinear_torch.QuantLinear(bits, GROUP, COLUMNS, ROWS, False)
        layer.device = "cpu"
        layer.pack(linear_of(weight), scales, zeros.int())
        take(f"gptq_v2_{bits}", layer, ("qweight", "qzeros", "scales"), found)
    weight, scales, zeros = quantized(4, generator)
    layer = WQLinear_GEMM.from_linear(
        linear_of(weight), 4, GROUP, scales=scales.T.contiguous(), zeros=zeros.T.contiguous()
    )
    take("awq", layer, ("qweight", "qzeros", "scales"), found)
    save_file(found, sys.argv[1])


if __name__ == "__main__":
    main()
