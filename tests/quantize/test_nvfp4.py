"""NVFP4 that we write: ModelOpt's bits, and the same weights in both layouts."""

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.quantized.decoded import FP4_VALUES, DecodedRef
from nemotrt.engines.model.tensor_names import linear_names
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.fp4 import nvfp4, second_scale
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint

FIXTURE = Path(__file__).parent / "fixtures/modelopt_four_bits.safetensors"
RECIPE = load_recipe("nvfp4")


def test_codes_and_scales_are_modelopts_to_the_bit() -> None:
    """The fixture's weight is random numbers of a seed: oracles/modelopt_four_bits.py."""
    expected = load_file(FIXTURE)
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(32, 256, generator=generator) * 0.1).bfloat16().float().numpy()
    second = second_scale(np.abs(weight).max())
    assert second == expected["nvfp4.weight_scale_2"].numpy()
    codes, scales = nvfp4(weight, 16, second)
    np.testing.assert_array_equal(codes, expected["nvfp4.weight"].numpy())
    np.testing.assert_array_equal(scales, expected["nvfp4.weight_scale"].view(torch.uint8).numpy())


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (2, 32), elements=st.floats(-8, 8, width=32)))
def test_a_code_is_the_nearest_of_the_sixteen(values: np.ndarray) -> None:
    """ml_dtypes' own cast is the oracle, ties to even among them; it keeps the sign of zero."""
    second = second_scale(np.abs(values).max())
    codes, scales = nvfp4(values, 16, second)
    found = np.stack([codes & 15, codes >> 4], axis=-1).reshape(values.shape)
    steps = np.repeat(scales.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * second, 16, axis=1)
    quotient = np.clip(values / steps, -6, 6)
    expected = quotient.astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    np.testing.assert_array_equal(FP4_VALUES[found], expected)


@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
def test_both_layouts_hold_the_same_weights(
    make_checkpoint: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    source, found = make_checkpoint(model_type), []
    for layout in CheckpointFormat:
        result = quantize_checkpoint(source, tmp_path / layout, RECIPE, QuantizeOptions(layout))
        found.append(open_checkpoint(tmp_path / layout))
        inspection = inspect_quantized(tmp_path / layout)
        assert not inspection.faults and inspection.num_quantized == result.num_linears
        assert {k: v[:3] for k, v in inspection.loaders.items()} == {
            k: v[:3] for k, v in result.loaders.items()
        }
    original = open_checkpoint(source)
    names = linear_names(original.config)
    assert sum(isinstance(found[0][name], DecodedRef) for name in names) == result.num_linears
    for name in names:
        ours, other, theirs = (c.floats(name) for c in (*found, original))
        np.testing.assert_allclose(ours, other, rtol=1e-6)
        assert np.abs(ours - theirs).max() <= np.abs(theirs).max() / 5


def test_the_configs_say_what_modelopt_and_vllm_read(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint("qwen3")
    quantize_checkpoint(source, tmp_path / "m", RECIPE, QuantizeOptions())
    nested = json.loads((tmp_path / "m/hf_quant_config.json").read_text())["quantization"]
    assert nested["quant_algo"] == "W4A16_NVFP4" and nested["group_size"] == 16
    layout = CheckpointFormat.COMPRESSED_TENSORS
    quantize_checkpoint(source, tmp_path / "c", RECIPE, QuantizeOptions(layout))
    flat = json.loads((tmp_path / "c/config.json").read_text())["quantization_config"]
    weights = flat["config_groups"]["group_0"]["weights"]
    assert flat["format"] == "nvfp4-pack-quantized"
    assert (weights["strategy"], weights["group_size"]) == ("tensor_group", 16)


def test_compressed_tensors_reads_them_as_we_do(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Its own decompressor, whose result is bfloat16."""
    layout, module = CheckpointFormat.COMPRESSED_TENSORS, "model.layers.0.mlp.up_proj"
    quantize_checkpoint(make_checkpoint("qwen3"), tmp_path / "c", RECIPE, QuantizeOptions(layout))
    stored = {k: v for p in (tmp_path / "c").glob("*.safetensors") for k, v in load_file(p).items()}
    state = {k.rpartition(".")[2]: v for k, v in stored.items() if k.startswith(f"{module}.")}
    args = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    theirs = BaseCompressor.get_value_from_registry("nvfp4-pack-quantized").decompress(
        state, scheme
    )
    ours = open_checkpoint(tmp_path / "c").floats(f"{module}.weight")
    np.testing.assert_allclose(ours, theirs["weight"].float().numpy(), rtol=5e-3, atol=1e-6)


def test_what_can_not_be_rounded_is_named(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    name = "backbone.layers.0.mixer.in_proj.weight"

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][3, 5] = float("nan")

    with pytest.raises(ArtefactError, match=f"{name} holds NaN or infinity"):
        quantize_checkpoint(make_checkpoint(edit=spoil), tmp_path / "m", RECIPE)
    text = (Path(__file__).parents[2] / "quantize/recipes/nvfp4.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("group_size: 16", "group_size: 32"))
    with pytest.raises(ConfigError, match="16 is W4A16_NVFP4's"):
        load_recipe(str(path))


def test_a_tensor_of_zeros_stays_zero() -> None:
    codes, scales = nvfp4(np.zeros((2, 32), np.float32), 16, second_scale(np.float32(0)))
    assert not codes.any() and (scales.view(ml_dtypes.float8_e4m3fn).astype(np.float32) == 1).all()
