"""Each member of the family by its hub name: read, and one layer of each kind at full width."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import AS_BUILT
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.memory.weights import weights_bytes
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import QuantizeOptions, quantize_checkpoint
from support import reference
from support.members import MEMBERS, SHAPES, one_of_each
from support.own_recipes import OWN_RECIPES

LIMITS = Limits(max_batch_size=2, max_seq_len=32, chunk_tokens=16)
BF16 = Formats(Precision.BF16, NumberFormat.BF16, NumberFormat.FP32)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_has_the_parameters_that_its_page_counts(name: str) -> None:
    raw, billions = MEMBERS[name]
    total = sum(math.prod(shape) for shape in expected_shapes(parse_model_config(raw)).values())
    assert total / 1e9 == pytest.approx(billions, abs=0.001)


def test_the_4b_is_read_whole() -> None:
    config = parse_model_config(MEMBERS["nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16"][0])
    mamba = config.mamba
    assert mamba is not None
    assert (mamba.num_heads, mamba.head_dim, mamba.state_size) == (96, 80, 128)
    assert (mamba.num_groups, mamba.chunk_size) == (8, 256)
    assert (config.num_mamba_layers, config.num_attention_layers) == (21, 4)
    assert config.max_position_embeddings == 262144
    assert config.rope_theta is None, "no member has rotary embeddings in effect"


@pytest.mark.parametrize("model_type", ["nemotron_h_puzzle", "gemma4"])
def test_what_is_not_of_the_family_is_refused_by_name(model_type: str) -> None:
    raw = MEMBERS["nvidia/NVIDIA-Nemotron-Nano-9B-v2"][0] | {"model_type": model_type}
    with pytest.raises(ConfigError, match=f"model_type '{model_type}' is not supported"):
        parse_model_config(raw)


@pytest.fixture
def with_images(tmp_path: Path) -> tuple[Path, Any]:
    """A tiny model laid out as 12B-v2-VL: a prefix, a nested config, a vision tower."""
    import json

    model = reference.nemotron_h("M-*").bfloat16()
    plain = reference.save(model, tmp_path / "plain")
    raw = json.loads((plain / "config.json").read_text())
    folder = tmp_path / "vl"
    folder.mkdir()
    config = {"model_type": "NemotronH_Nano_VL_V2", "llm_config": raw, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {f"language_model.{k}": v for k, v in load_file(plain / "model.safetensors").items()}
    tower = {"vision_model.patch.weight": np.ones((4, 4), np.float32), "mlp1.0.weight": np.ones(4)}
    save_file(tensors | tower, folder / "model.safetensors")
    return folder, model.float()


def first_logits(folder: Path) -> np.ndarray:
    """Return the engine's logits behind some tokens."""
    opened = open_engine(folder, AS_BUILT)
    try:
        return opened.engine.step([Feed(opened.engine.allocate(), list(range(12)))])[0].copy()
    finally:
        opened.engine.close()


def test_of_a_model_with_images_the_language_model_runs(with_images: tuple[Path, Any]) -> None:
    folder, model = with_images
    assert open_checkpoint(folder).notes() == (
        "2 tensors are no part of this model, left out: mlp1.0.weight, vision_model.patch.weight",
    )
    build_engine(folder, folder.parent / "e", BuildSpec("native", limits=LIMITS))
    expected = reference.logits(model, list(range(12)))[-1]
    np.testing.assert_allclose(first_logits(folder.parent / "e"), expected, atol=1e-4, rtol=0)


def test_a_quantized_model_with_images_is_its_language_model(
    with_images: tuple[Path, Any],
) -> None:
    """A plain checkpoint, as every loader of the family reads; nothing of the tower stays."""
    folder, target = with_images[0], with_images[0].parent / "q"
    quantize_checkpoint(folder, target, load_recipe("int8-wo"))
    found = inspect_quantized(target, folder)
    assert not found.faults and found.num_quantized == 8
    names = load_file(target / "model.safetensors")
    assert not any(name.startswith(("language_model", "vision", "mlp1")) for name in names)
    assert parse_model_config(MEMBERS["nvidia/NVIDIA-Nemotron-Nano-12B-v2-VL-BF16"][0]).layers


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_one_layer_of_each_kind_at_full_width(name: str, tmp_path: Path) -> None:
    """Engines equal transformers; quantized by each recipe; planned to the byte.

    Of 128 experts there are 16: each has its real width, and a token chooses as many as it does.
    """
    is_moe = "n_routed_experts" in SHAPES[name]
    layers, widths = one_of_each(SHAPES[name], **({"n_routed_experts": 16} if is_moe else {}))
    model = reference.nemotron_h(layers, **widths)
    expected = reference.logits(model, list(range(12)))[-1]
    source = reference.save(model.bfloat16(), tmp_path / "c")
    del model
    for backend in ("native", "onnxruntime"):
        spec = BuildSpec(backend, precision=Precision.FP32, limits=LIMITS)
        build_engine(source, tmp_path / backend, spec)
        found = first_logits(tmp_path / backend)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0, err_msg=backend)
    size = sum(ref.num_bytes for ref in open_checkpoint(source).tensors.values())
    vectors = 0.001  # norms and Mamba's small tensors may be float32
    assert weights_bytes(load_model(str(source)), BF16) == pytest.approx(size, rel=vectors)
    tokens = np.arange(32).reshape(2, 16)
    save_calibration(calibrate(open_checkpoint(source), tokens), tmp_path / "calibration")
    for recipe in OWN_RECIPES:
        if recipe == "int8-sq" and is_moe:
            continue  # refused by name: test_experts.py
        target = tmp_path / recipe
        options = QuantizeOptions(calibration=tmp_path / "calibration")
        quantize_checkpoint(source, target, load_recipe(recipe), options)
        assert not inspect_quantized(target, source).faults, recipe
        build_engine(target, tmp_path / f"{recipe}-engine", BuildSpec("native", limits=LIMITS))
        found, bound = first_logits(tmp_path / f"{recipe}-engine"), 0.3
        if is_moe:  # a rounded input may choose other experts: compared with what the codes say
            spec = BuildSpec("native", precision=Precision.FP32, limits=LIMITS)
            build_engine(target, tmp_path / f"{recipe}-floats", spec)
            expected, bound = first_logits(tmp_path / f"{recipe}-floats"), 0.01
        assert np.sqrt(np.mean((found - expected) ** 2)) < bound * expected.std(), recipe
        for part in (target, *tmp_path.glob(f"{recipe}-*")):
            shutil.rmtree(part)  # gigabytes
    shutil.rmtree(tmp_path)
