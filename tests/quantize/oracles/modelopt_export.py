"""Run in an environment with nvidia-modelopt: quantize the 2-D tensors of files, one linear each.

usage: python modelopt_export.py CONFIG_NAME IN.safetensors OUT.safetensors [IN OUT ...]
"""

import sys

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export.unified_export_hf import _export_quantized_weight
from safetensors.torch import load_file, save_file


def main() -> None:
    config, *paths = sys.argv[1:]
    for source, target in zip(paths[::2], paths[1::2], strict=True):
        export(source, target, config)


def export(source: str, target: str, config: str) -> None:
    weights = load_file(source)
    model = torch.nn.ModuleDict()
    for name, weight in weights.items():
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        linear.weight.data = weight
        model[name] = linear

    def calibrate(model: torch.nn.ModuleDict) -> None:
        for linear in model.values():
            linear(torch.ones(1, linear.in_features, dtype=linear.weight.dtype))

    mtq.quantize(model, getattr(mtq, config), forward_loop=calibrate)
    result = {}
    for name, linear in model.items():
        _export_quantized_weight(linear, weights[name].dtype)
        result[f"{name}.weight"] = linear.weight.data.contiguous()
        result[f"{name}.weight_scale"] = linear.weight_scale.contiguous()
    save_file(result, target)


if __name__ == "__main__":
    main()
