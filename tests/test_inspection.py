"""`nemotrt inspect` on checkpoints; engines are in tests/build."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from nemotrt.cli import main
from nemotrt.engines.tiny.models import TINY_MODELS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_a_plain_checkpoint() -> None:
    found = json.loads(run(TINY_MODELS["tiny"], "--json").stdout)
    tensors = load_file(TINY_MODELS["tiny"] / "model.safetensors")
    assert found["num_tensors"] == len(tensors)
    assert found["num_bytes"] == sum(t.numel() * t.element_size() for t in tensors.values())


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    target = tmp_path / "q"
    result = CliRunner().invoke(
        main, ["quantize", "tiny", "--recipe", "int8-wo", "-o", str(target)]
    )
    assert result.exit_code == 0, result.output
    return target


def test_a_quantized_checkpoint_names_its_loaders(quantized: Path) -> None:
    result = run(quantized)
    assert result.exit_code == 0, result.output
    assert "W8A16" in result.stdout and "loads in" in result.stdout
    assert json.loads(run(quantized, "--json").stdout)["faults"] == []


def test_a_broken_scale_is_found(quantized: Path) -> None:
    tensors = load_file(quantized / "model.safetensors")
    name = next(name for name in tensors if name.endswith("weight_scale"))
    tensors[name][0] = 0
    save_file(tensors, quantized / "model.safetensors")
    result = run(quantized)
    assert result.exit_code == 1
    assert name.removesuffix(".weight_scale") in result.stderr


def test_what_is_neither(tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 1
    (tmp_path / "config.json").write_text("{")
    assert run(tmp_path).exit_code == 1


def test_a_quantized_checkpoint_against_its_source(quantized: Path) -> None:
    result = run(quantized, "--source", "tiny")
    assert result.exit_code == 0, result.output
    assert "of each weight's RMS; worst backbone.layers." in result.stdout
    report = json.loads(run(quantized, "--source", "tiny", "--json").stdout)
    errors = report["weight_errors"]
    assert len(errors) == report["num_quantized"]
    assert all(0.004 < error < 0.02 for error in errors.values())  # int8, trained weights
    assert json.loads(run(quantized, "--json").stdout)["weight_errors"] == {}


def test_weights_that_are_not_the_sources_are_all_named(quantized: Path) -> None:
    tensors = load_file(quantized / "model.safetensors")
    names = [name for name in tensors if name.endswith("in_proj.weight_scale")][:2]
    for name in names:
        tensors[name] *= 1.02
    save_file(tensors, quantized / "model.safetensors")
    assert run(quantized).exit_code == 0  # nothing is wrong with it alone
    result = run(quantized, "--source", "tiny")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert all(name.removesuffix(".weight_scale") in result.stderr for name in names)
    assert len(json.loads(run(quantized, "--source", "tiny", "--json").stdout)["faults"]) == 2


def test_a_source_is_for_quantized_checkpoints(quantized: Path, tmp_path: Path) -> None:
    assert run(TINY_MODELS["tiny"], "--source", "tiny").exit_code == 2
    assert run(tmp_path, "--source", "tiny").exit_code == 2
    assert run(quantized, "--source", "tiny-dense").exit_code == 2
    assert run(quantized, "--source", tmp_path / "none").exit_code == 2
