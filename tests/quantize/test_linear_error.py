"""The error of each linear against torch's arithmetic on the inputs that a hook sees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.conversion.options import CalibrationOptions, QuantizeOptions
from nemotrt.quantize.quality.evaluate import evaluate
from nemotrt.quantize.quality.quality import LinearError
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.reference import from_folder

IDS = np.arange(4 * 24).reshape(4, 24) * 7 % 96


def inputs(folder: Path) -> dict[str, torch.Tensor]:
    """What enters each linear of transformers' model, by hub module name."""
    model = from_folder(folder)
    seen: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            key = name.replace("model.", "backbone.", 1)
            module.register_forward_pre_hook(
                lambda module, arguments, key=key: seen.update({key: arguments[0].clone()})
            )
    with torch.no_grad():
        model(torch.from_numpy(IDS), use_cache=False)
    return seen


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_fp8_dynamic_is_torchs_arithmetic(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint(num_shards=1)
    quantize_checkpoint(source, tmp_path / "out", load_recipe("fp8-dynamic"))
    linears = evaluate(source, tmp_path / "out", {"x": IDS}).linears
    assert [item.output_error for item in linears] == sorted(
        (item.output_error for item in linears), reverse=True
    )
    seen = inputs(source)
    before, after = (load_file(path / "model.safetensors") for path in (source, tmp_path / "out"))
    quantized = {name for name, tensor in after.items() if tensor.dtype == torch.float8_e4m3fn}
    assert {f"{item.name}.weight" for item in linears} == quantized
    for item in linears:
        x, weight = seen[item.name].double(), before[f"{item.name}.weight"].double()
        scale = x.abs().amax(-1, keepdim=True) / 448
        rounded = (x / scale).float().to(torch.float8_e4m3fn).double() * scale
        codes = after[f"{item.name}.weight"].double()
        other = codes * after[f"{item.name}.weight_scale"].double()[:, None]
        assert item.weight_error == pytest.approx(relative(other, weight), rel=1e-4)
        assert item.input_error == pytest.approx(relative(rounded, x), rel=5e-3)
        expected = relative(rounded @ other.T, x @ weight.T)
        assert item.output_error == pytest.approx(expected, rel=5e-3)
        assert item.layer == int(item.name.split(".")[2])


def test_weight_only_leaves_the_input(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = make_checkpoint()
    quantize_checkpoint(source, tmp_path / "out", load_recipe("int8-wo"))
    linears = evaluate(source, tmp_path / "out", {"x": IDS}).linears
    assert linears and all(item.input_error == 0 < item.output_error < 0.02 for item in linears)


def with_outliers(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if name.endswith("norm.weight"):
            tensor.fill_(1.0)
            tensor[::11] = 30.0
        elif name.endswith(("up_proj.weight", "in_proj.weight")):
            tensor[:, ::11] /= 30.0
            tensor[::7] *= 4.0


@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
def test_folded_and_unfolded_smoothing_have_the_same_errors(
    make_checkpoint: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    """The folded factors are found again: the same linears see the same inputs."""
    source = make_checkpoint(model_type, edit=with_outliers)
    save_calibration(calibrate(open_checkpoint(source), IDS), tmp_path / "c")
    found: list[dict[str, LinearError]] = []
    for fold in (True, False):
        how = CalibrationOptions(fold=fold)
        options = QuantizeOptions(calibration=tmp_path / "c", calibration_options=how)
        quantize_checkpoint(source, tmp_path / f"{fold}", load_recipe("int8-sq"), options)
        quality = evaluate(source, tmp_path / f"{fold}", {"x": IDS})
        found.append({item.name: item for item in quality.linears})
    assert found[0].keys() == found[1].keys() and found[0]
    for name, item in found[0].items():
        other = found[1][name]
        assert item.weight_error == pytest.approx(other.weight_error, rel=1e-3)
        assert item.input_error == pytest.approx(other.input_error, rel=1e-2)
        assert item.output_error == pytest.approx(other.output_error, rel=1e-2)
        assert item.output_error < 0.05


def test_layers_have_an_error_of_each_text(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Alone or together with another, a text shows the same; the whole is between the two."""
    source = make_checkpoint()
    quantize_checkpoint(source, tmp_path / "out", load_recipe("fp8-dynamic"))
    one, other = IDS[:1], IDS[1:]
    both = evaluate(source, tmp_path / "out", {"one": one, "other": other}).layers
    alone = {item.layer: item for item in evaluate(source, tmp_path / "out", {"x": one}).layers}
    for layer in both:
        assert layer.by_text["one"] == pytest.approx(alone[layer.layer].by_text["x"], rel=1e-4)
        assert alone[layer.layer].by_text["x"] == alone[layer.layer].relative_error
        low, high = sorted(layer.by_text.values())
        assert low <= layer.relative_error <= high
    assert any(layer.relative_error > 0 for layer in both)


def test_nothing_quantized_has_no_linears(checkpoint: Path) -> None:
    assert evaluate(checkpoint, checkpoint, {"x": IDS}).linears == ()
