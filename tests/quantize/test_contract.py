"""The loaders' contracts, replayed: what is written passes, each kind of damage is named."""

import fnmatch
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nemotrt.engines.checkpoint import open_checkpoint
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibrate import calibrate
from nemotrt.quantize.calibration import save_calibration
from nemotrt.quantize.contract import inspect_quantized
from nemotrt.quantize.formats import Format
from nemotrt.quantize.recipe import load_recipe, recipe_names
from nemotrt.quantize.writer import QuantizeOptions, quantize_checkpoint

IN_PROJ = "backbone.layers.0.mixer.in_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def single(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(num_shards=1)


@pytest.fixture(scope="session")
def calibration(single: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract") / "c"
    save_calibration(calibrate(open_checkpoint(single), np.arange(32).reshape(2, 16)), folder)
    return folder


@pytest.mark.parametrize("layout", list(Format))
@pytest.mark.parametrize("recipe", recipe_names())
def test_what_is_written_has_no_faults(
    single: Path, calibration: Path, tmp_path: Path, recipe: str, layout: Format
) -> None:
    options = QuantizeOptions(layout=layout, calibration=calibration)
    result = quantize_checkpoint(single, tmp_path / "out", load_recipe(recipe), options)
    found = inspect_quantized(tmp_path / "out")
    assert found.faults == ()
    assert (found.format, found.algo.value) == (layout, result.quant_algo)
    assert found.num_quantized == result.num_linears
    assert "vLLM" in found.loaders


@pytest.mark.parametrize("recipe", ["fp8", "fp8-dynamic"])
def test_old_and_new_loaders_match_the_exclusions_alike(
    single: Path, calibration: Path, tmp_path: Path, recipe: str
) -> None:
    """Older TensorRT-LLM: fnmatch on the full name. vLLM: exact, then substring, then fnmatch."""
    options = QuantizeOptions(calibration=calibration)
    quantize_checkpoint(single, tmp_path / "out", load_recipe(recipe), options)
    exclude = json.loads((tmp_path / "out/hf_quant_config.json").read_text())["quantization"][
        "exclude_modules"
    ]
    tensors = load_file(tmp_path / "out/model.safetensors")
    for name, tensor in tensors.items():
        if not name.endswith(".weight") or tensor.ndim < 2 or "embeddings" in name:
            continue
        module, is_codes = name.removesuffix(".weight"), tensor.dtype == torch.float8_e4m3fn
        by_trt_llm = any(fnmatch.fnmatchcase(module, pattern) for pattern in exclude)
        by_vllm = any(pattern == module or pattern in module for pattern in exclude)
        assert by_trt_llm == by_vllm == (not is_codes), name


def nan_code(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight"].view(torch.uint8)[0, 0] = 0x7F


def negative_scale(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight_scale"][1] = -1


def wrong_shape(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight_scale"] = tensors[f"{IN_PROJ}.weight_scale"][:, None].contiguous()


def no_scale(tensors: Tensors) -> None:
    del tensors[f"{IN_PROJ}.weight_scale"]


def half_range(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight"][2] = 1.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (nan_code, "in_proj has NaN codes"),
        (negative_scale, "weight_scale holds a value that is not positive"),
        (wrong_shape, r"is F32 \[.*, 1\], expected F32 \["),
        (no_scale, "in_proj.weight_scale is missing"),
        (half_range, "channel 2: the largest code is 56, not 126"),
    ],
)
def test_damage_is_named(
    single: Path, tmp_path: Path, damage: Callable[[Tensors], None], message: str
) -> None:
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"))
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    damage(tensors)
    save_file(tensors, path)
    (fault,) = inspect_quantized(tmp_path / "out").faults
    assert re.search(message, fault), fault


def test_configs_that_disagree_are_named(single: Path, tmp_path: Path) -> None:
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"))
    path = tmp_path / "out/hf_quant_config.json"
    nested = json.loads(path.read_text())
    nested["quantization"]["exclude_modules"].remove("lm_head")
    nested["quantization"]["kv_cache_quant_algo"] = "FP8"
    path.write_text(json.dumps(nested))
    faults = " ".join(inspect_quantized(tmp_path / "out").faults)
    assert "lm_head is not excluded" in faults
    assert "exclude_modules differ" in faults
    assert "only one of the two configs" in faults


def test_a_plain_checkpoint_is_refused(single: Path) -> None:
    with pytest.raises(ConfigError, match="is not quantized"):
        inspect_quantized(single)
