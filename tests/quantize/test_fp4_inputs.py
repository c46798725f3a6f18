"""Folders whose engines round the inputs of linears too, NVFP4's first: read, and said to be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nemotrt.engines.backends.tensorrt_llm import bundle
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.quantized.config import flat_config, nested_config
from nemotrt.engines.checkpoint.quantized.scheme import QuantConfig
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.contracts.loaders import BUILD, TRANSFORMERS, others_verdicts
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint

TINY = TINY_MODELS["tiny"]
FP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
INT4 = {"num_bits": 4, "strategy": "group", "group_size": 128}


def modelopt(algo: str) -> QuantConfig:
    return nested_config({"quantization": {"quant_algo": algo}}, "x")


def compressed(weights: dict[str, Any], inputs: dict[str, Any] | None) -> QuantConfig:
    group = {"weights": weights, "input_activations": inputs}
    return flat_config({"quant_method": "compressed-tensors", "config_groups": {"g": group}}, "x")


@pytest.mark.parametrize(
    ("quant", "is_told"),
    [
        (modelopt("NVFP4"), True),
        (modelopt("NVFP4_AWQ"), True),
        (modelopt("W4A16_NVFP4"), False),
        (modelopt("FP8"), False),  # codes here, inputs too
        (flat_config({"quant_method": "fp8", "weight_block_size": [128, 128]}, "x"), True),
        (flat_config({"quant_method": "awq", "bits": 4, "group_size": 16}, "x"), False),
        (compressed(FP4, None), False),
        (compressed(FP4, FP4), True),
        (compressed(INT4, None), False),
    ],
    ids=str,
)
def test_inputs_that_are_not_rounded_here_are_told(quant: QuantConfig, is_told: bool) -> None:
    assert quant.leaves_inputs is is_told


def test_a_folder_of_nvfp4_with_scales_of_inputs_and_cache(tmp_path: Path) -> None:
    """As ModelOpt writes W4A4 with an FP8 cache: read as floats, and said to be."""
    source = tmp_path / "q"
    quantize_checkpoint(TINY, source, load_recipe("nvfp4"))
    weights = load_file(source / "model.safetensors")
    linears = [name.removesuffix("_scale_2") for name in weights if name.endswith("_scale_2")]
    before = open_checkpoint(source)
    expected = {name: before.floats(name) for name in linears}
    extra = {name.replace("weight", "input_scale"): torch.tensor(0.01) for name in linears}
    caches = {
        name.replace(".weight", f".{letter}_scale"): torch.tensor(0.02)
        for name in weights
        for letter in "kv"
        if name.endswith(f"{letter}_proj.weight")
    }
    save_file(weights | extra | caches, source / "model.safetensors", {"format": "pt"})
    told = json.loads((source / "hf_quant_config.json").read_text())
    told["quantization"] |= {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}
    (source / "hf_quant_config.json").write_text(json.dumps(told))
    found = open_checkpoint(source)
    assert linears and caches
    for name in linears:
        np.testing.assert_array_equal(found.floats(name), expected[name])
    assert "their inputs, which engines of its own round too, stay floats" in found.notes()[0]
    verdicts = inspect_quantized(source).loaders
    assert "the KV cache, FP8 by its config, is of 16 or 32 bits" in verdicts[BUILD]
    with pytest.raises(ConfigError, match="quantized already"):
        quantize_checkpoint(source, tmp_path / "x", load_recipe("fp8-dynamic"))
    with pytest.raises(ConfigError, match="ModelOpt NVFP4, for which backend tensorrt-llm writes"):
        bundle.check(found, "10.0", 1)


def test_a_cache_beside_fp4_in_transformers() -> None:
    """Both versions read such a folder as they read any of compressed-tensors."""
    group = {"config_groups": {"g": {"weights": FP4}}}
    cache = {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    quant = flat_config({"quant_method": "compressed-tensors"} | group | cache, "x")
    assert "by its scales in 5.19" in others_verdicts(quant)[TRANSFORMERS]
