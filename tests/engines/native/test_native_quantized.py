"""Engines of quantized checkpoints: transformers with the decoded weights is the oracle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.library.library import available_isas
from nemotrt.engines.backends.native.program.program import DEPTH_BLOCK, TensorKind, read_program
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.errors import ArtefactError
from support import reference

LIMITS = Limits(max_batch_size=2, max_seq_len=64, chunk_tokens=16)
ALGOS = {
    "W8A16": torch.int8,
    "W8A8_SQ_PER_CHANNEL": torch.int8,
    "FP8": torch.float8_e4m3fn,
    "FP8_PER_CHANNEL_PER_TOKEN": torch.float8_e4m3fn,
}
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
INT16_ERROR = 2e-3  # of logits near 1: inputs of int8 linears are rounded to 14 bits
KERNELS = available_isas()


def quantize(folder: Path, target: Path, algo: str) -> None:
    """Write the checkpoint again with every linear but the head as codes and a scale."""
    tensors, code_type = load_file(folder / "model.safetensors"), ALGOS[algo]
    for name in [n for n in tensors if n.endswith("proj.weight")]:
        weight = tensors[name].float()
        is_per_tensor = algo == "FP8"
        amax = weight.abs().max() if is_per_tensor else weight.abs().amax(1, keepdim=True)
        scale = amax / LARGEST[code_type]
        codes = weight / scale
        tensors[name] = (codes.round() if code_type is torch.int8 else codes).to(code_type)
        tensors[f"{name}_scale"] = scale.reshape(()) if is_per_tensor else scale.reshape(-1)
    target.mkdir()
    save_file(tensors, target / "model.safetensors")
    (target / "config.json").write_text((folder / "config.json").read_text())
    config = {"quantization": {"quant_algo": algo, "exclude_modules": ["lm_head"]}}
    (target / "hf_quant_config.json").write_text(json.dumps(config))


def decoded(model: Any, target: Path) -> Any:
    """Give the model the weights that the codes stand for."""
    tensors = load_file(target / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stored = name if name in tensors else name.replace("model.", "backbone.", 1)
            if f"{stored}_scale" in tensors:
                scale = tensors[f"{stored}_scale"]
                values = tensors[stored].float() * (scale[:, None] if scale.dim() else scale)
                parameter.copy_(values)
    return model


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("architecture", ["nemotron_h", "qwen3"])
def test_logits_are_those_of_the_decoded_weights(
    tmp_path: Path, algo: str, architecture: str
) -> None:
    model = reference.nemotron_h("M-*M-") if architecture == "nemotron_h" else reference.qwen3()
    reference.save(model, tmp_path / "c")
    quantize(tmp_path / "c", tmp_path / "q", algo)
    build_engine(tmp_path / "q", tmp_path / "e", BuildSpec("native", limits=LIMITS))
    kinds = {tensor.kind for tensor in read_program(tmp_path / "e").tensors}
    is_int8 = ALGOS[algo] is torch.int8
    assert (TensorKind.PANELS_INT8 if is_int8 else TensorKind.PANELS_FLOAT8) in kinds
    tokens = [5, 17, 80, 3, 3, 41, 62, 9, 11, 90]
    before = reference.logits(model, tokens)
    expected = reference.logits(decoded(model, tmp_path / "q"), tokens)
    assert np.abs(before - expected).max() > 10 * INT16_ERROR, "the codes must matter"
    for isa in KERNELS:
        engine = NativeEngine(tmp_path / "e", LIMITS, 1, isa)
        slot, rows = engine.allocate(), []
        for part in (tokens[:1], tokens[1:8], tokens[8:]):
            rows.append(engine.step([Feed(slot, part)])[0].copy())
        engine.close()
        tolerance = INT16_ERROR if is_int8 else 1e-4
        np.testing.assert_allclose(rows, expected[[0, 7, 9]], atol=tolerance, rtol=0)


DEEP = {"intermediate_size": 2 * DEPTH_BLOCK + 400}  # three blocks of inputs, the last not whole


def rounded_by_block(model: Any) -> Any:
    """Give the model int8 weights, with a scale for each output and DEPTH_BLOCK inputs."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("proj.weight", "lm_head.weight")):
                for part in weight.split(DEPTH_BLOCK, dim=1):
                    scale = part.abs().amax(1, keepdim=True) / 127
                    part.copy_((part / scale).round() * scale)
    return model


def check_logits(folder: Path, expected: np.ndarray, tokens: list[int]) -> None:
    """Compare one prompt's last logits, by each kind of kernels, of one token and of several."""
    for isa in KERNELS:
        engine = NativeEngine(folder, LIMITS, 1, isa)
        slot = engine.allocate()
        rows = [engine.step([Feed(slot, part)])[0].copy() for part in (tokens[:1], tokens[1:])]
        engine.close()
        np.testing.assert_allclose(rows, expected[[0, -1]], atol=INT16_ERROR, rtol=0)


def test_floats_are_rounded_with_a_scale_for_each_block_of_inputs(tmp_path: Path) -> None:
    """Finer than a scale a row: its error is less, and it shows."""
    model = reference.nemotron_h("-*-", **DEEP)
    reference.save(model, tmp_path / "c")
    spec = BuildSpec("native", precision=Precision.INT8_WO, limits=LIMITS)
    build_engine(tmp_path / "c", tmp_path / "e", spec)
    scales = [t for t in read_program(tmp_path / "e").tensors if t.name.endswith("_scale")]
    assert {tensor.rows for tensor in scales} == {1, 3}
    tokens = [5, 17, 80, 3, 3, 41, 62, 9, 11, 90]
    exact = reference.logits(model, tokens)
    expected = reference.logits(rounded_by_block(model), tokens)
    assert np.abs(exact - expected).max() > 2 * INT16_ERROR, "the codes must matter"
    check_logits(tmp_path / "e", expected, tokens)


def test_stored_codes_keep_the_scale_of_their_row(tmp_path: Path) -> None:
    model = reference.nemotron_h("-*-", **DEEP)
    reference.save(model, tmp_path / "c")
    quantize(tmp_path / "c", tmp_path / "q", "W8A16")
    build_engine(tmp_path / "q", tmp_path / "e", BuildSpec("native", limits=LIMITS))
    program = read_program(tmp_path / "e")
    assert {t.rows for t in program.tensors if t.name.endswith("_scale")} == {1}
    tokens = [5, 17, 80, 3, 3, 41]
    check_logits(tmp_path / "e", reference.logits(decoded(model, tmp_path / "q"), tokens), tokens)


def test_every_float8_code_is_decoded_exactly(tmp_path: Path) -> None:
    """A one-layer model whose head reads each code: compared through the embedding of one token."""
    model = reference.nemotron_h("-", hidden_size=256, intermediate_size=256)
    reference.save(model, tmp_path / "c")
    quantize(tmp_path / "c", tmp_path / "q", "FP8")
    tensors = load_file(tmp_path / "q" / "model.safetensors")
    codes = torch.arange(256, dtype=torch.uint8)
    codes[[0x7F, 0xFF]] = 0
    rows = codes.view(torch.float8_e4m3fn).reshape(1, 256).expand(256, 256).contiguous()
    name = "backbone.layers.0.mixer.up_proj.weight"
    tensors[name] = torch.stack([rows[i].roll(i) for i in range(256)])
    save_file(tensors, tmp_path / "q" / "model.safetensors")
    build_engine(tmp_path / "q", tmp_path / "e", BuildSpec("native", limits=LIMITS))
    expected = reference.logits(decoded(model, tmp_path / "q"), [7])[0]
    for isa in KERNELS:
        engine = NativeEngine(tmp_path / "e", LIMITS, 1, isa)
        found = engine.step([Feed(engine.allocate(), [7])])[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_float8_nan_is_refused(tmp_path: Path) -> None:
    model = reference.nemotron_h("-")
    reference.save(model, tmp_path / "c")
    quantize(tmp_path / "c", tmp_path / "q", "FP8")
    tensors = load_file(tmp_path / "q" / "model.safetensors")
    weight = tensors["backbone.layers.0.mixer.up_proj.weight"]
    weight.view(torch.uint8)[3, 3] = 0xFF
    save_file(tensors, tmp_path / "q" / "model.safetensors")
    with pytest.raises(ArtefactError, match=r"up_proj\.weight holds NaN"):
        build_engine(tmp_path / "q", tmp_path / "e", BuildSpec("native", limits=LIMITS))


@pytest.mark.parametrize("precision", ["int8-sq", "fp8", "fp8-dynamic"])
def test_a_checkpoint_without_the_codes_is_refused(tmp_path: Path, precision: str) -> None:
    options = ["--backend", "native", "--precision", precision, "-o", str(tmp_path / "e")]
    result = CliRunner().invoke(main, ["build", "tiny", *options])
    assert result.exit_code == 2
    assert f"nemotrt quantize --recipe {precision}" in result.output
