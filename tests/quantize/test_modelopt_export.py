"""The trained model as the real ModelOpt exports it, beside what we write: the slow tier."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nemotrt.engines.checkpoint.checkpoint import ALIASES, open_checkpoint
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.calibration.texts import DEFAULT_TEXT, read_texts, token_windows
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.recipes.selection import sharing_scale
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.peers import peer_python

ORACLE = Path(__file__).parent / "oracles/modelopt_model.py"
TINY, DENSE = TINY_MODELS["tiny"], TINY_MODELS["tiny-dense"]
EVERYTHING = """
description: every linear, as ModelOpt's default does
algo: {algo}
min_compute_capability: 8.9
quantize:
  nemotron_h:
    mamba: [in_proj, out_proj]
    mlp: [up_proj, down_proj]
    attention: [q_proj, k_proj, v_proj, o_proj]
  qwen3:
    mlp: [up_proj, gate_proj, down_proj]
    attention: [q_proj, k_proj, v_proj, o_proj]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "config", "algo", "kv_cache"),
    [
        (TINY, "FP8_DEFAULT_CFG+FP8_KV_CFG", "FP8", "fp8"),
        (TINY, "FP8_PER_CHANNEL_PER_TOKEN_CFG", "FP8_PER_CHANNEL_PER_TOKEN", "none"),
        (TINY, "INT8_WEIGHT_ONLY_CFG", "W8A16", "none"),
        (DENSE, "FP8_DEFAULT_CFG", "FP8", "none"),
    ],
)
def test_we_write_what_modelopt_exports(
    tmp_path: Path, source: Path, config: str, algo: str, kv_cache: str
) -> None:
    """The same tensors to the bit; static scales as near as its bfloat16 activations allow.

    Qwen3's fused linears have the largest of ModelOpt's scales, and the codes that go with it.
    """
    ids = token_windows(source, read_texts(DEFAULT_TEXT), 64, 8)
    np.save(tmp_path / "ids.npy", ids)
    command = [str(peer_python("modelopt")), str(ORACLE), config, str(source)]
    command += [str(tmp_path / "theirs"), str(tmp_path / "ids.npy")]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "all.yaml").write_text(EVERYTHING.format(algo=algo))
    save_calibration(calibrate(open_checkpoint(source), ids), tmp_path / "c")
    options = QuantizeOptions(kv_cache=kv_cache, calibration=tmp_path / "c")
    recipe = load_recipe(str(tmp_path / "all.yaml"))
    result = quantize_checkpoint(source, tmp_path / "ours", recipe, options)

    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    theirs = {ALIASES.get(name, name): tensor for name, tensor in theirs.items()}
    assert ours.keys() == theirs.keys()
    changes, common = [], set()
    if algo == "FP8":
        for group in set(sharing_scale(open_checkpoint(source).config).values()):
            names = [f"{name}_scale" for name in group]
            largest = max(float(theirs[name]) for name in names)
            assert {float(ours[name]) for name in names} == {largest}
            common |= {name for name in group if float(theirs[f"{name}_scale"]) != largest}
    for name, tensor in ours.items():
        other = theirs[name]
        if name.removesuffix("_scale") in common:
            continue
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        if name.endswith(("input_scale", "k_scale", "v_scale")):
            changes.append(abs(float(tensor) / float(other) - 1))
        else:
            one, two = (value.reshape(-1).view(torch.uint8) for value in (tensor, other))
            assert torch.equal(one, two), name
    if algo == "FP8":  # the largest of noisy values: bfloat16 moves it by a few percent
        assert len(changes) == result.num_linears + (2 * 2 if kv_cache == "fp8" else 0)
        assert np.median(changes) < 0.005 and max(changes) < 0.05
    # ModelOpt 0.47 corrupts the names of what it excludes; loaders would then misread lm_head.
    faults = inspect_quantized(tmp_path / "theirs", source).faults
    is_corrupt = source == TINY
    assert is_corrupt == any(fault.startswith("lm_head is not excluded") for fault in faults)
    assert all("is not excluded" in fault for fault in faults), faults
