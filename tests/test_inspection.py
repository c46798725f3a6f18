"""`nemotrt inspect` on checkpoints; engines are in tests/build."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from nemotrt.cli import main
from nemotrt.engines.tiny_models import TINY_MODELS


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
