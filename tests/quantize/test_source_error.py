"""A quantized checkpoint against its source: what is right passes, each kind of damage is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.options import CalibrationOptions, QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.own_recipes import OWN_RECIPES

IDS = np.arange(4 * 24).reshape(4, 24) * 7 % 96
LAYER = "backbone.layers.{}.mixer"
IN_PROJ, OUT_PROJ = LAYER.format(0) + ".in_proj", LAYER.format(0) + ".out_proj"
Tensors = dict[str, torch.Tensor]
MakeCheckpoint = Callable[..., Path]


def odd_weights(tensors: Tensors) -> None:
    """Heavy tails, rows of zeros and of one value, magnitudes from 1e-38 to 1e30, outliers."""
    generator = torch.Generator().manual_seed(1)
    for number, (name, tensor) in enumerate(tensors.items()):
        if name.endswith("norm.weight"):
            tensor.fill_(1.0)
            tensor[::11] = 30.0
        if not name.endswith("_proj.weight"):
            continue
        if number % 3 == 0:  # Cauchy
            noise = torch.rand(tensor.shape, generator=generator) - 0.5
            tensor.copy_(torch.tan(3.1 * noise) * 0.02)
        tensor[:, ::11] /= 30.0
        tensor[1] = 0.0
        tensor[2] = 0.25
        tensor[3] *= 1e-36
        tensor[4, 5:] *= 1e-6


def calibrated(source: Path, folder: Path) -> Path:
    save_calibration(calibrate(open_checkpoint(source), IDS), folder)
    return folder


@pytest.fixture(scope="session")
def sources(
    make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path]]:
    """Model type -> a checkpoint of odd weights, and its calibration."""
    found = {}
    for model_type in ("nemotron_h", "qwen3"):
        source = make_checkpoint(model_type, num_shards=1, edit=odd_weights)
        folder = tmp_path_factory.mktemp("odd") / "c"
        found[model_type] = source, calibrated(source, folder)
    return found


@pytest.mark.parametrize("layout", list(CheckpointFormat))
@pytest.mark.parametrize("recipe", OWN_RECIPES)
@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
def test_any_weights_stay_within_the_band(
    sources: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    model_type: str,
    recipe: str,
    layout: CheckpointFormat,
) -> None:
    source, calibration = sources[model_type]
    options = QuantizeOptions(layout=layout, kv_cache="fp8", calibration=calibration)
    result = quantize_checkpoint(source, tmp_path / "out", load_recipe(recipe), options)
    found = inspect_quantized(tmp_path / "out", source)
    assert found.faults == ()
    assert len(found.weight_errors) == result.num_linears


def test_unfolded_smoothing_is_within_the_band(
    sources: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    source, calibration = sources["nemotron_h"]
    errors = []
    for fold in (True, False):
        how = CalibrationOptions(fold=fold)
        options = QuantizeOptions(calibration=calibration, calibration_options=how)
        quantize_checkpoint(source, tmp_path / f"{fold}", load_recipe("int8-sq"), options)
        found = inspect_quantized(tmp_path / f"{fold}", source)
        assert found.faults == ()
        errors.append(found.weight_errors)
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
def test_channels_whose_norm_is_zero(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, model_type: str
) -> None:
    """Nothing enters there, so the norm can't tell the factor; some rows' amax lies there."""

    def edit(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if name.endswith("norm.weight"):
                tensor.fill_(1.0)
                tensor[::11] = 30.0
                tensor[5:8] = 0.0
            elif name.endswith(("up_proj.weight", "in_proj.weight", "gate_proj.weight")):
                tensor *= 0.1
                tensor[::2, 6] *= 50.0

    source = make_checkpoint(model_type, num_shards=1, edit=edit)
    options = QuantizeOptions(calibration=calibrated(source, tmp_path / "c"))
    quantize_checkpoint(source, tmp_path / "out", load_recipe("int8-sq"), options)
    before, after = (load_file(path / "model.safetensors") for path in (source, tmp_path / "out"))
    assert any(not torch.equal(before[n], after[n]) for n in before if n.endswith("norm.weight"))
    assert inspect_quantized(tmp_path / "out", source).faults == ()


@pytest.mark.parametrize("recipe", ["fp8-dynamic", "int8-wo"])
def test_the_errors_are_torchs(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, recipe: str
) -> None:
    source = make_checkpoint(num_shards=1)
    quantize_checkpoint(source, tmp_path / "out", load_recipe(recipe))
    before, after = (load_file(path / "model.safetensors") for path in (source, tmp_path / "out"))
    errors = inspect_quantized(tmp_path / "out", source).weight_errors
    for module, error in errors.items():
        weight = before[f"{module}.weight"].double()
        scale = after[f"{module}.weight_scale"].double()
        difference = after[f"{module}.weight"].double() * scale[:, None] - weight
        assert error == pytest.approx(float(difference.norm() / weight.norm()), rel=1e-4)


def scale_off(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight_scale"][7] *= 1.05


def transposed(tensors: Tensors) -> None:
    codes = tensors[f"{OUT_PROJ}.weight"].view(torch.uint8).T.contiguous()
    tensors[f"{OUT_PROJ}.weight"] = codes.view(torch.float8_e4m3fn)


def swapped_tensors(tensors: Tensors) -> None:
    for leaf in ("weight", "weight_scale"):
        one, other = f"{IN_PROJ}.{leaf}", f"{LAYER.format(2)}.in_proj.{leaf}"
        tensors[one], tensors[other] = tensors[other], tensors[one]


def swapped_channels(tensors: Tensors) -> None:
    for leaf in ("weight", "weight_scale"):
        raw = tensors[f"{IN_PROJ}.{leaf}"]
        raw = raw.view(torch.uint8) if leaf == "weight" else raw
        raw[[3, 4]] = raw[[4, 3]].clone()


def one_bit(tensors: Tensors) -> None:
    tensors["backbone.norm_f.weight"].view(torch.int16)[3] ^= 1


def one_code(tensors: Tensors) -> None:
    codes = tensors[f"{IN_PROJ}.weight"].view(torch.uint8)
    codes[5, 6] ^= 0x80  # a sign


def gone(tensors: Tensors) -> None:
    del tensors[f"{LAYER.format(0)}.dt_bias"]


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (scale_off, [f"{IN_PROJ}, channel 7: differs from the source by more than rounding"]),
        (transposed, [f"{OUT_PROJ}, channel "]),
        (swapped_tensors, [f"{IN_PROJ}, channel ", f"{LAYER.format(2)}.in_proj, channel "]),
        (swapped_channels, [f"{IN_PROJ}, channel "]),
        (one_code, [f"{IN_PROJ}, channel 5: "]),
        (one_bit, ["backbone.norm_f.weight is not quantized, but is not the source's"]),
        (gone, [f"{LAYER.format(0)}.dt_bias is not quantized, but is not the source's"]),
    ],
)
def test_damage_that_only_the_source_shows(
    make_checkpoint: MakeCheckpoint,
    tmp_path: Path,
    damage: Callable[[Tensors], None],
    messages: list[str],
) -> None:
    source = make_checkpoint(num_shards=1)
    quantize_checkpoint(source, tmp_path / "out", load_recipe("fp8-dynamic"))
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    damage(tensors)
    save_file(tensors, path)
    faults = inspect_quantized(tmp_path / "out", source).faults
    assert len(faults) >= len(messages)
    assert all(any(fault.startswith(text) for fault in faults) for text in messages), faults


NORM = "backbone.layers.0.norm.weight"
UP_SCALE = f"{LAYER.format(1)}.up_proj.weight_scale"


@pytest.mark.parametrize(
    ("name", "factor", "message"),
    [
        (NORM, 1.5, f"{NORM}, channel 3: not the source's over a power of two"),
        (NORM, 2.0, f"{IN_PROJ}, channel "),
        (UP_SCALE, 1.1, f"{LAYER.format(1)}.up_proj, channel 3: "),
        (UP_SCALE, 4.0, f"{LAYER.format(1)}.down_proj, channel "),  # what reads up_proj is off
        ("backbone.layers.4.norm.weight", 2.0, "backbone.layers.4.norm.weight is not the source's"),
    ],
)
def test_damage_to_folded_smoothing(
    sources: dict[str, tuple[Path, Path]], tmp_path: Path, name: str, factor: float, message: str
) -> None:
    source, calibration = sources["nemotron_h"]
    options = QuantizeOptions(calibration=calibration)
    quantize_checkpoint(source, tmp_path / "out", load_recipe("int8-sq"), options)
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    tensors[name][3] *= factor
    save_file(tensors, path)
    faults = inspect_quantized(tmp_path / "out", source).faults
    assert any(fault.startswith(message) for fault in faults), faults


def test_the_source_must_be_the_16_bit_model(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    source = make_checkpoint()
    quantize_checkpoint(source, tmp_path / "out", load_recipe("int8-wo"))
    with pytest.raises(ConfigError, match="give the 16 bit checkpoint"):
        inspect_quantized(tmp_path / "out", tmp_path / "out")
    with pytest.raises(ConfigError, match="another model"):
        inspect_quantized(tmp_path / "out", make_checkpoint("qwen3"))
