"""TensorRT plans, really compiled here for GPUs that are not here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines import tensorrt
from nemotrt.engines.checkpoint import open_checkpoint
from nemotrt.engines.engine import Limits
from nemotrt.engines.linear_weight import LinearWeight
from nemotrt.engines.manifest import read_manifest
from nemotrt.engines.onnx_graph import GRAPH_FILE
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensor_names import linear_names
from nemotrt.engines.tiny_models import TINY_MODELS
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from support import reference
from support.graph_runner import GraphRunner, as_float32

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)


def int8_checkpoint(folder: Path, model: Any) -> Path:
    """Write a ModelOpt-style W8A16 checkpoint with torch alone."""
    import torch

    reference.save(model, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in linear_names(open_checkpoint(folder).config):
        weight = tensors[name].float()
        scale = weight.abs().amax(1) / 127
        tensors[name] = (weight / scale[:, None]).round().to(torch.int8)
        tensors[f"{name}_scale"] = scale
    save_file(tensors, folder / "model.safetensors")
    quantization = {"quantization": {"quant_algo": "W8A16", "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(quantization))
    return folder


@pytest.mark.parametrize("gpu", ["a10g", "a100"])
@pytest.mark.parametrize("name", ["tiny", "tiny-dense"])
def test_plans_compile_for_ampere(gpu: str, name: str, tmp_path: Path) -> None:
    spec = BuildSpec("tensorrt", gpu, limits=LIMITS)
    manifest = build_engine(TINY_MODELS[name], tmp_path / "e", spec)
    assert manifest.executed is False
    assert manifest.precision is Precision.BF16
    assert manifest.compute_capability == {"a10g": "8.6", "a100": "8.0"}[gpu]
    plan = (tmp_path / "e" / tensorrt.PLAN_FILE).read_bytes()
    assert len(plan) > 100_000
    checkpoint = open_checkpoint(TINY_MODELS[name])
    bound = read_manifest(tmp_path / "e").weights
    assert set(bound) >= set(linear_names(checkpoint.config))
    for name_, weight in bound.items():
        assert weight.shape == checkpoint[weight.tensor].shape
        assert name_ == weight.tensor
    largest = max(checkpoint[weight.tensor].num_bytes for weight in bound.values())
    raw = checkpoint["lm_head.weight" if "lm_head.weight" in bound else next(iter(bound))]
    assert raw.map().tobytes() not in plan, "the weights are not inside the plan"
    assert largest > 1_000_000


def test_int8_weights_compile_and_compute_the_dequantized_model(tmp_path: Path) -> None:
    import torch

    model = reference.nemotron_h(hidden_size=64, head_dim=64, mamba_head_dim=16)
    source = int8_checkpoint(tmp_path / "c", model)
    manifest = build_engine(source, tmp_path / "e", BuildSpec("tensorrt", "a10g", limits=LIMITS))
    assert manifest.precision is Precision.INT8_WO
    scales = [w for name, w in manifest.weights.items() if name.endswith("_scale")]
    assert len(scales) == len(linear_names(open_checkpoint(source).config))
    assert {scale.dtype for scale in scales} == {"F32"}

    opened = open_checkpoint(source)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_proj.weight"):
                hub = name.replace("model.", "backbone.")
                parameter.copy_(torch.from_numpy(LinearWeight(opened, hub).floats()))
    float_graph = as_float32(tmp_path / "e" / GRAPH_FILE, tmp_path / "e" / "float32.onnx")
    weights = {
        name: opened[w.tensor].map() if w.dtype == "I8" else opened.floats(w.tensor)
        for name, w in manifest.weights.items()
    }
    tokens = list(range(12))
    found = GraphRunner(float_graph, 1, 64, weights).feed([tokens])[0]
    np.testing.assert_allclose(found, reference.logits(model, tokens)[-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("capability", "precision", "error", "message"),
    [
        ("8.6", Precision.FP8, ConfigError, r"8\.6 has no FP8 .* int8-wo or bf16"),
        ("8.0", Precision.FP8_DYNAMIC, ConfigError, "no FP8"),
        ("8.6", Precision.FP32, ConfigError, "does not build fp32"),
        ("9.0", Precision.BF16, EnvironmentUnfitError, r"nemotrt\[tensorrt\]"),
    ],
)
def test_what_can_not_be_built_is_refused_by_name(
    capability: str, precision: Precision, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tensorrt.check(capability, precision)


def test_a_missing_compiler_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "RTX_MODULE", "no_such_module")
    with pytest.raises(EnvironmentUnfitError, match=r"pip install 'nemotrt\[rtx\]'"):
        tensorrt.check("8.6", Precision.BF16)


def test_a_float_checkpoint_is_not_built_as_int8(tmp_path: Path) -> None:
    spec = BuildSpec("tensorrt", "a10g", Precision.INT8_WO, LIMITS)
    with pytest.raises(ConfigError, match="nemotrt quantize"):
        build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)
    assert list(tmp_path.iterdir()) == []


def test_the_same_input_gives_the_same_graph_and_bindings(tmp_path: Path) -> None:
    """The plan's bytes may differ: the compiler orders its tensors by address."""
    spec = BuildSpec("tensorrt", "a10g", limits=LIMITS)
    manifests = []
    for name in "ab":
        build_engine(TINY_MODELS["tiny"], tmp_path / name, spec)
        manifests.append(read_manifest(tmp_path / name).model_dump())
    plans = [manifest["files"].pop(tensorrt.PLAN_FILE) for manifest in manifests]
    assert manifests[0] == manifests[1]
    assert plans[0]["num_bytes"] == plans[1]["num_bytes"]
