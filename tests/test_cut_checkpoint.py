"""A checkpoint of which a file was cut, as by a broken copy: commands say which, with a cure."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.text.tokenizer import TOKENIZER_FILES
from nemotrt.engines.tiny.models import TINY_MODELS

FILES = ("config.json", "model.safetensors", *TOKENIZER_FILES)
COMMANDS = {
    "inspect": (),
    "build": ("--dry-run", "-o", "out"),
    "quantize": ("--recipe", "int8-wo", "--dry-run", "-o", "out"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(TINY_MODELS["tiny"], tmp_path / "checkpoint")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", FILES)
def test_what_was_cut_is_named_with_the_cure(folder: Path, name: str, command: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = CliRunner().invoke(main, [command, "checkpoint", *COMMANDS[command]])
    assert done.exit_code == 1, done.output
    assert "copy or download it again" in done.stderr and done.stderr.count("\n") == 1
    named = "the chat template" if name.endswith(".jinja") else f"checkpoint/{name}"
    assert named in done.stderr and not (folder.parent / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_whole_one_passes(folder: Path, command: str) -> None:
    done = CliRunner().invoke(main, [command, "checkpoint", *COMMANDS[command]])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_what_no_engine_needs_may_be_missing(folder: Path, command: str) -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink()
    done = CliRunner().invoke(main, [command, "checkpoint", *COMMANDS[command]])
    assert done.exit_code == 0, done.output


def test_neither_an_engine_nor_a_checkpoint(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["inspect", str(tmp_path)])
    assert done.exit_code == 1 and "no engine.json and no config.json" in done.stderr
