"""Static FP8: linears that engines run as one have one scale in Qwen3, the common maximum."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe, recipe_names
from nemotrt.quantize.writing.writer import quantize_checkpoint

IDS = np.random.default_rng(0).integers(0, 96, (2, 16))
GROUPS = (
    [f"model.layers.0.self_attn.{leaf}_proj" for leaf in "qkv"],
    [f"model.layers.0.mlp.{leaf}_proj" for leaf in ("gate", "up")],
)


def spread(tensors: dict[str, torch.Tensor]) -> None:
    """Give each linear another largest weight."""
    for number, name in enumerate(sorted(tensors)):
        if name.endswith("_proj.weight"):
            tensors[name] *= 1 + number % 5


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()
    }


@pytest.fixture(scope="module")
def source(make_checkpoint: Callable[..., Path]) -> Path:
    """Three shards: the members of a group lie in different ones."""
    return make_checkpoint("qwen3", edit=spread)


@pytest.fixture(scope="module")
def quantized(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("q")
    save_calibration(calibrate(open_checkpoint(source), IDS), folder / "c")

    def quantize(layout: CheckpointFormat, recipe: str = "fp8") -> Path:
        target = folder / f"{layout}-{recipe}"
        if not target.exists():
            options = QuantizeOptions(layout=layout, calibration=folder / "c")
            quantize_checkpoint(source, target, load_recipe(recipe), options)
        return target

    return quantize


@pytest.mark.parametrize("layout", list(CheckpointFormat))
@pytest.mark.parametrize("group", GROUPS, ids=["qkv", "gate and up"])
def test_a_group_has_the_common_maximum(
    source: Path, quantized: Callable[..., Path], layout: CheckpointFormat, group: list[str]
) -> None:
    before, found = tensors_of(source), tensors_of(quantized(layout))
    own = [before[f"{name}.weight"].abs().max().float() for name in group]
    assert len({float(amax) for amax in own}) == len(group)  # they do differ
    scale = max(own) / 448
    for name in group:
        assert float(found[f"{name}.weight_scale"]) == float(scale)
        # as ModelOpt divides: by a 0-dim tensor, which leaves bfloat16
        codes = (before[f"{name}.weight"] / scale).to(torch.float8_e4m3fn)
        assert torch.equal(found[f"{name}.weight"].view(torch.uint8), codes.view(torch.uint8))
    inputs = {float(found[f"{name}.input_scale"]) for name in group}
    assert len(inputs) == 1
    alone = "model.layers.0.self_attn.o_proj"
    own_scale = before[f"{alone}.weight"].abs().max().float() / 448
    assert float(found[f"{alone}.weight_scale"]) == float(own_scale)


@pytest.mark.parametrize("layout", list(CheckpointFormat))
def test_inspection_knows_the_common_scale(
    source: Path, quantized: Callable[..., Path], layout: CheckpointFormat, tmp_path: Path
) -> None:
    folder = quantized(layout)
    assert inspect_quantized(folder, source).faults == ()
    # A scale that is no one's maximum is still found, alone or in all of the group.
    for names in (GROUPS[0], GROUPS[0][:1]):
        target = tmp_path / f"bad{len(names)}"
        target.mkdir()
        for path in folder.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        for path in target.glob("*.safetensors"):
            tensors = load_file(path)
            for name in names:
                if f"{name}.weight_scale" in tensors:
                    tensors[f"{name}.weight_scale"] *= 2
            save_file(tensors, path)
        faults = inspect_quantized(target, source).faults
        assert any(names[0] in fault and "by more than rounding" in fault for fault in faults)


@pytest.mark.parametrize("layout", list(CheckpointFormat))
def test_scales_of_their_own_are_no_fault(
    source: Path, quantized: Callable[..., Path], layout: CheckpointFormat, tmp_path: Path
) -> None:
    """Other tools write them, and loaders take the larger one."""
    before = tensors_of(source)
    for path in quantized(layout).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in tmp_path.glob("*.safetensors"):
        tensors = load_file(path)
        for name in (name for group in GROUPS for name in group):
            scale = before[f"{name}.weight"].abs().max().float() / 448
            if f"{name}.weight_scale" in tensors:
                tensors[f"{name}.weight_scale"].fill_(float(scale))
            if f"{name}.weight" in tensors:
                codes = (before[f"{name}.weight"] / scale).to(torch.float8_e4m3fn)
                tensors[f"{name}.weight"] = codes
        save_file(tensors, path)
    assert inspect_quantized(tmp_path, source).faults == ()


def test_per_channel_scales_are_nobody_s_but_the_channel_s(
    source: Path, quantized: Callable[..., Path]
) -> None:
    before = tensors_of(source)
    found = tensors_of(quantized(CheckpointFormat.MODELOPT, "fp8-dynamic"))
    for name in (name for group in GROUPS for name in group):
        expected = before[f"{name}.weight"].abs().amax(1).float() / 448
        assert torch.equal(found[f"{name}.weight_scale"], expected)


@pytest.mark.parametrize("layout", list(CheckpointFormat))
@pytest.mark.parametrize("recipe", recipe_names())
def test_no_recipe_gives_fused_linears_scales_that_engines_would_have_to_merge(
    quantized: Callable[..., Path], layout: CheckpointFormat, recipe: str
) -> None:
    """One scale per tensor is common to a group; scales of rows and of groups lie side by side."""
    found = tensors_of(quantized(layout, recipe))
    for group in GROUPS:
        leaves = [
            {
                name.removeprefix(f"{module}."): tensor
                for name, tensor in found.items()
                if name.startswith(f"{module}.")
            }
            for module in group
        ]
        assert all(leaf.keys() == leaves[0].keys() for leaf in leaves)
        for name in (n for n in leaves[0] if "scale" in n and leaves[0][n].numel() == 1):
            assert len({leaf[name].item() for leaf in leaves}) == 1, (group, name)
        if "pre_quant_scale" in leaves[0]:  # of one input
            assert all(
                torch.equal(leaf["pre_quant_scale"], leaves[0]["pre_quant_scale"])
                for leaf in leaves
            )
