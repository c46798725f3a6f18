"""int4 checkpoints, by compressed-tensors' own reader; both layouts; their engines."""

import filecmp
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from safetensors.torch import load_file, save_file

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends.native.program.program import WEIGHTS_FILE
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import linear_names
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint

LIMITS = Limits(2, 64, 16)
Written = dict[CheckpointFormat, Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The tiny dense model in groups of 64, in both layouts."""
    recipe, root = load_recipe("int4-wo").with_groups(64), tmp_path_factory.mktemp("int4")
    for layout in CheckpointFormat:
        options = QuantizeOptions(layout=layout)
        quantize_checkpoint(TINY_MODELS["tiny-dense"], root / layout, recipe, options)
    return {layout: root / layout for layout in CheckpointFormat}


def test_weights_are_what_compressed_tensors_unpacks(written: Written) -> None:
    """And near the source's, as far as 4 bits go."""
    folder = written[CheckpointFormat.COMPRESSED_TENSORS]
    checkpoint, stored = open_checkpoint(folder), load_file(folder / "model.safetensors")
    source = open_checkpoint(TINY_MODELS["tiny-dense"])
    for name in linear_names(checkpoint.config):
        module = name.removesuffix(".weight")
        shape = torch.Size(stored[f"{module}.weight_shape"].tolist())
        codes = unpack_from_int32(stored[f"{module}.weight_packed"], 4, shape)
        scales = stored[f"{module}.weight_scale"]
        assert scales.dtype == torch.bfloat16 and scales.shape == (shape[0], shape[1] // 64)
        expected = (codes.float() * scales.float().repeat_interleave(64, 1)).numpy()
        found = LinearWeight(checkpoint, name).floats()
        np.testing.assert_array_equal(found, expected)
        exact = source.floats(name)
        assert np.linalg.norm(found - exact) < 0.11 * np.linalg.norm(exact)


def test_both_layouts_hold_the_same_and_give_the_same_engine(
    written: Written, tmp_path: Path
) -> None:
    first, second = (open_checkpoint(folder) for folder in written.values())
    for name in linear_names(first.config):
        one, other = LinearWeight(first, name), LinearWeight(second, name)
        assert one.has_int4 and other.has_int4
        np.testing.assert_array_equal(one.floats(), other.floats())
        np.testing.assert_array_equal(other.floats(slice(3, 8)), other.floats()[3:8])
    for layout, folder in written.items():
        build_engine(folder, tmp_path / layout, BuildSpec("native", limits=LIMITS))
    engines = [tmp_path / layout / WEIGHTS_FILE for layout in written]
    assert filecmp.cmp(*engines, shallow=False)


def test_an_engine_of_the_source_is_that_of_its_int4_checkpoint(tmp_path: Path) -> None:
    source = TINY_MODELS["tiny"]
    options = QuantizeOptions(CheckpointFormat.COMPRESSED_TENSORS)
    quantize_checkpoint(source, tmp_path / "q", load_recipe("int4-wo"), options)
    build_engine(tmp_path / "q", tmp_path / "e", BuildSpec("native", limits=LIMITS))
    spec = BuildSpec("native", precision=Precision.INT4_WO, limits=LIMITS)
    build_engine(source, tmp_path / "s", spec)
    assert filecmp.cmp(tmp_path / "e" / WEIGHTS_FILE, tmp_path / "s" / WEIGHTS_FILE, shallow=False)


def test_groups_must_divide_every_input(tmp_path: Path) -> None:
    """The tiny hybrid's out_proj has 480."""
    command = ["quantize", "tiny", "--recipe", "int4-wo", "--group-size", "64"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "q")])
    assert result.exit_code == 2 and not (tmp_path / "q").exists()
    assert "has 480 input channels, which groups of 64 do not divide" in result.stderr
    assert "those that do: 32" in result.stderr


def test_the_size_of_groups_is_told_where_it_is_read(tmp_path: Path) -> None:
    command = ["quantize", "tiny-dense", "--recipe", "int4-wo", "--group-size", "128"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "q")])
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "q/config.json").read_text())["quantization_config"]
    assert config["format"] == "pack-quantized"
    weights = config["config_groups"]["group_0"]["weights"]
    assert weights["group_size"] == 128 and weights["num_bits"] == 4 and weights["symmetric"]
    assert inspect_quantized(tmp_path / "q").faults == ()
    unused = CliRunner().invoke(
        main, ["quantize", "tiny", "--recipe", "int8-wo", *command[4:], "-o", str(tmp_path / "u")]
    )
    assert unused.exit_code == 0 and "--group-size: nothing to do" in unused.stderr


def test_damage_is_named(written: Written, tmp_path: Path) -> None:
    folder = written[CheckpointFormat.COMPRESSED_TENSORS]
    tensors = load_file(folder / "model.safetensors")
    target = tmp_path / "q"
    target.mkdir()
    module = "model.layers.1.mlp.down_proj"
    tensors[f"{module}.weight_scale"][7, 1] *= 3
    tensors["model.layers.0.mlp.up_proj.weight_packed"][:, :4] = 0
    save_file(tensors, target / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config))
    faults = inspect_quantized(target, TINY_MODELS["tiny-dense"]).faults
    assert any(f"{module}, channel 7: differs" in fault for fault in faults)
    assert any("layers.0.mlp.up_proj, channel" in fault for fault in faults)
    config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = 32
    (target / "config.json").write_text(json.dumps(config))
    assert any("config.json says groups of 32" in x for x in inspect_quantized(target).faults)
    del tensors["model.layers.0.mlp.up_proj.weight_shape"]
    save_file(tensors, target / "model.safetensors")
    with pytest.raises(ArtefactError, match=r"up_proj\.weight_shape is missing"):
        open_checkpoint(target)


def test_a_gpu_backend_that_has_no_int4_says_so(written: Written, tmp_path: Path) -> None:
    spec = BuildSpec("tensorrt-llm", "h100", limits=LIMITS)
    with pytest.raises(ConfigError, match=r"stored as compressed-tensors.*--format modelopt"):
        build_engine(written[CheckpointFormat.COMPRESSED_TENSORS], tmp_path / "e", spec)
    build_engine(written[CheckpointFormat.MODELOPT], tmp_path / "e", spec)
    for backend in ("edge-llm", "tensorrt-llm-1.2"):
        spec = BuildSpec(backend, "a10g", limits=LIMITS)
        with pytest.raises(ConfigError, match="does not build int4-wo"):
            build_engine(written[CheckpointFormat.MODELOPT], tmp_path / "f", spec)
