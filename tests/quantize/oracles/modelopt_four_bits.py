"""Run in an environment with nvidia-modelopt: export random weights in its four bit formats.

usage: python modelopt_four_bits.py OUT.safetensors

Each case is `CASE.LEAF`, and `CASE.expected` is the weight by ModelOpt's own dequantization.
"""

import copy
import sys

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export.unified_export_hf import _export_quantized_weight
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from safetensors.torch import save_file

ROWS, COLUMNS, GROUP = 32, 256, 16


def awq(weight: torch.Tensor, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return W4A16_AWQ: calibrated, smoothed, exported."""
    linear = torch.nn.Linear(COLUMNS, ROWS, bias=False, dtype=torch.bfloat16)
    linear.weight.data = weight
    model = torch.nn.ModuleDict({"linear": linear})
    config = copy.deepcopy(mtq.INT4_AWQ_CFG)
    mtq.quantize(model, config, forward_loop=lambda model: model["linear"](inputs))
    layer = model["linear"]
    expected = layer.weight_quantizer(layer.weight).detach().float()
    factor = layer.input_quantizer._pre_quant_scale
    _export_quantized_weight(layer, torch.bfloat16)
    return {
        "weight": layer.weight.data,
        "weight_scale": layer.weight_scale,
        "pre_quant_scale": factor,
        "expected": expected * factor.float(),
    }


def nvfp4(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return NVFP4; calibrating it needs a GPU, packing does not."""
    packed, scale, second = NVFP4QTensor.quantize(weight, GROUP)
    expected = packed.dequantize(
        torch.float32, scale=scale, double_scale=second, block_sizes={-1: GROUP}
    )
    return {
        "weight": packed._quantized_data,
        "weight_scale": scale,
        "weight_scale_2": second,
        "expected": expected,
    }


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(ROWS, COLUMNS, generator=generator) * 0.1).bfloat16()
    inputs = torch.randn(16, COLUMNS, generator=generator) * torch.linspace(0.1, 4, COLUMNS)
    cases = {"w4a16_awq": awq(weight.clone(), inputs.bfloat16()), "nvfp4": nvfp4(weight)}
    found = {
        f"{case}.{leaf}": tensor.detach().contiguous().clone()
        for case, leaves in cases.items()
        for leaf, tensor in leaves.items()
    }
    save_file(found, sys.argv[1])


if __name__ == "__main__":
    main()
