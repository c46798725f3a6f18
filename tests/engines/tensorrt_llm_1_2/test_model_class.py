"""TensorRT-LLM 1.2: the model class, computed by a stand-in of its Python API."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from nemotrt.engines.backends import tensorrt_llm_1_2
from nemotrt.engines.backends.tensorrt_llm_1_2.checkpoint_config import checkpoint_config
from nemotrt.engines.backends.tensorrt_llm_1_2.conversion import Rank, rank_tensors
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.tiny.models import TINY_MODELS
from support import engine_run, fake_quantized, reference
from support.trtllm_build import convert

PROMPT = [1, 700, 23, 1999, 4, 17, 88, 2001, 5]
DTYPES = {"BF16": "bfloat16", "F32": "float32", "I8": "int8", "F8_E4M3": "fp8"}


def expected(model: Any, ids: list[int]) -> np.ndarray:
    return reference.logits(model, ids)[-1]


@pytest.mark.usefixtures("engine_api")
@pytest.mark.parametrize("size", [1, 2])
def test_the_tiny_model_computes_what_transformers_does(size: int, tmp_path: Path) -> None:
    """Six heads of Mamba: 1.2 pads each rank's row of in_proj to eight."""
    folder = convert(TINY_MODELS["tiny"], tmp_path / "e", size, "a10g")
    ranks = engine_run.Ranks(folder, size)
    model = reference.from_folder(TINY_MODELS["tiny"])
    found = ranks.step([(0, PROMPT)])[0]
    np.testing.assert_allclose(found, expected(model, PROMPT), rtol=2e-4, atol=2e-4)
    used = {"MambaConv1d", "SelectiveScan", "GPTAttention"}
    assert set(ranks.networks[0].plugins_used) == used


@pytest.mark.usefixtures("engine_api")
@pytest.mark.parametrize(
    ("recipe", "size", "gpu"),
    [
        ("bf16", 4, "a100"),
        ("bf16", 8, "h100"),
        ("int8-wo", 1, "a10g"),
        ("int8-wo", 8, "a100"),
        ("int8-wo", 2, "h100"),
        ("int8-sq", 2, "a10g"),
        ("int8-sq-unfolded", 8, "a100"),
        ("fp8", 1, "h100"),
        ("fp8", 4, "h100"),
        ("fp8-all", 8, "h100"),
        ("int8-sq-all", 2, "a10g"),
    ],
)
def test_quantized_and_shared_by_gpus_it_is_the_same_model(
    recipe: str,
    size: int,
    gpu: str,
    wide: Path,
    quantized: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    source = quantized(recipe)
    folder = convert(source, tmp_path / "e", size, gpu)
    ranks = engine_run.Ranks(folder, size, is_hopper=gpu == "h100")
    if recipe == "fp8-all":
        source = _with_one_qkv_scale(source, tmp_path / "one")
    model = reference.from_folder(wide) if recipe == "bf16" else fake_quantized.load(wide, source)
    wanted = expected(model, PROMPT)
    error = np.linalg.norm(ranks.step([(1, PROMPT)])[0] - wanted) / np.linalg.norm(wanted)
    assert error < (1e-4 if recipe == "bf16" else 1e-2)


def _with_one_qkv_scale(source: Path, target: Path) -> Path:
    """Copy an FP8 checkpoint with q, k and v coded again in the largest of their scales, by torch.

    TensorRT-LLM has one scale for the three.
    """
    shutil.copytree(source, target)
    tensors = load_torch(target / "model.safetensors")
    names = [f"backbone.layers.2.mixer.{leaf}_proj" for leaf in "qkv"]
    largest = max(tensors[f"{name}.weight_scale"] for name in names)
    assert len({float(tensors[f"{name}.weight_scale"]) for name in names}) == 3
    for name in names:
        floats = tensors[f"{name}.weight"].float() * tensors[f"{name}.weight_scale"]
        codes = (floats / largest).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors |= {f"{name}.weight": codes, f"{name}.weight_scale": largest.clone()}
    save_torch(tensors, target / "model.safetensors")
    return target


@pytest.mark.usefixtures("engine_api")
def test_decoding_in_a_batch_of_slots_that_were_used_before(wide: Path, tmp_path: Path) -> None:
    """Prompts and single tokens in one step; states and caches by slot, on two ranks."""
    ranks = engine_run.Ranks(convert(wide, tmp_path / "e", 2), 2)
    model = reference.from_folder(wide)
    first, second = PROMPT, PROMPT[::-1][:4]
    ranks.step([(2, first[:5])])
    ranks.step([(2, first[5:6])])
    found = ranks.step([(2, first[6:7]), (0, second)])
    np.testing.assert_allclose(found[0], expected(model, first[:7]), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(found[1], expected(model, second), rtol=2e-4, atol=2e-4)
    ranks.held[2] = 0
    found = ranks.step([(0, [77]), (2, second)])
    np.testing.assert_allclose(found[0], expected(model, [*second, 77]), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(found[1], expected(model, second), rtol=2e-4, atol=2e-4)


@pytest.mark.usefixtures("engine_api")
@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ({"mamba_conv1d_plugin": None}, "needs --mamba_conv1d_plugin"),
        ({"remove_input_padding": False}, "needs --remove_input_padding"),
        ({"gpt_attention_plugin": None}, "needs --gpt_attention_plugin"),
    ],
)
def test_the_class_says_which_flag_of_trtllm_build_it_needs(
    plugins: dict[str, Any], message: str, wide: Path, tmp_path: Path
) -> None:
    ranks = engine_run.Ranks(convert(wide, tmp_path / "e", 1), 1, **plugins)
    with pytest.raises(ValueError, match=message):
        ranks.step([(0, PROMPT)])


@pytest.mark.usefixtures("engine_api")
def test_states_that_are_not_paged_are_tensors_in_and_out(wide: Path, tmp_path: Path) -> None:
    folder = convert(wide, tmp_path / "e", 1)
    ranks = engine_run.Ranks(folder, 1, paged_state=False)
    feeds = ranks._feeds([(0, PROMPT)])
    del feeds["slot_mapping"]
    for name, value in ranks.memory[0].items():
        kind = "conv" if name < 2000 else "rnn"
        feeds[f"past_{kind}_state_{name % 1000}"] = value[:1] * 0
    ranks._feeds = lambda _: feeds  # type: ignore[method-assign]
    found = ranks.step([(0, PROMPT)])[0]
    wanted = expected(reference.from_folder(wide), PROMPT)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)
    outputs = {"logits"}
    outputs |= {f"present_{kind}_state_{i}" for kind in ("conv", "rnn") for i in (0, 3)}
    assert set(ranks.networks[0].outputs) == outputs


@pytest.mark.usefixtures("engine_api")
@pytest.mark.parametrize(
    ("precision", "capability", "size"),
    [
        ("bf16", "8.6", 1),
        ("bf16", "9.0", 8),
        ("int8-wo", "8.6", 1),
        ("int8-wo", "9.0", 4),
        ("int8-sq", "8.0", 8),
        ("fp8", "9.0", 4),
    ],
)
def test_the_9b_s_tensors_are_those_that_the_class_asks_for(
    precision: str, capability: str, size: int, nano_9b: Callable[[str], Checkpoint]
) -> None:
    """All 56 layers at their widths: names, types and shapes; no weight is read."""
    source = nano_9b(precision)
    found = {
        tensor.name: (DTYPES[tensor.dtype], tensor.shape)
        for tensor in rank_tensors(source, Rank(size - 1, size), capability)
    }
    kind = engine_run.load_model_class(Path(tensorrt_llm_1_2.__file__).parent)
    config_class = sys.modules["tensorrt_llm.models.modeling_utils"].PretrainedConfig
    config = config_class(**checkpoint_config(source, size))
    config.set_rank(size - 1)
    wanted = {name: (p.dtype, p.shape) for name, p in kind(config).named_parameters()}
    assert found == wanted
