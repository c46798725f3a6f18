"""Stored codes mean what the checkpoint says, with a pre_quant_scale too."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from support import reference

UP = "backbone.layers.1.mixer.up_proj"


def quantized(folder: Path, *, smooth: bool) -> tuple[Path, np.ndarray]:
    """Write a checkpoint with one int8 linear; return it and the weight that it stands for."""
    reference.save(reference.nemotron_h(), folder)
    tensors = load_file(folder / "model.safetensors")
    weight = tensors[f"{UP}.weight"].float()
    factor = torch.linspace(0.25, 4, weight.shape[1]) if smooth else torch.ones(weight.shape[1])
    scale = (weight / factor).abs().amax(1) / 127
    codes = (weight / factor / scale[:, None]).round()
    tensors[f"{UP}.weight"] = codes.to(torch.int8)
    tensors[f"{UP}.weight_scale"] = scale
    if smooth:
        tensors[f"{UP}.pre_quant_scale"] = factor
    save_file(tensors, folder / "model.safetensors")
    return folder, (codes * scale[:, None] * factor).numpy()


def test_plain_codes_are_returned_as_stored(tmp_path: Path) -> None:
    folder, expected = quantized(tmp_path, smooth=False)
    linear = LinearWeight(open_checkpoint(folder), f"{UP}.weight")
    codes, scale = linear.int8()
    np.testing.assert_array_equal(codes, load_file(folder / "model.safetensors")[f"{UP}.weight"])
    np.testing.assert_allclose(codes * scale[:, None], expected, rtol=1e-6)
    np.testing.assert_allclose(linear.floats(), expected, rtol=1e-6)


def test_a_pre_quant_scale_is_part_of_the_weight(tmp_path: Path) -> None:
    folder, expected = quantized(tmp_path, smooth=True)
    linear = LinearWeight(open_checkpoint(folder), f"{UP}.weight")
    np.testing.assert_allclose(linear.floats(), expected, rtol=1e-6)
    codes, scale = linear.int8()
    error = np.abs(codes * scale[:, None] - expected)
    assert (error <= scale[:, None] * 0.5001).all()
