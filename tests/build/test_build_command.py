"""`nemotrt build` and `nemotrt inspect`, as a user meets them."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.engines.tiny.models import TINY_MODELS
from support import reference


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("build") / "engine"
    command = ("build", "tiny", "--backend", "onnxruntime", "-o", target)
    result = run(*command, "--max-seq-len", 256)
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "engine"))


def test_inspect_prints_and_verifies(engine: Path) -> None:
    result = run("inspect", engine)
    assert result.exit_code == 0
    assert "every SHA-256 verified" in result.stdout
    manifest = json.loads(run("inspect", engine, "--json").stdout)
    assert manifest["schema_version"] == 1
    assert manifest["backend"] == "onnxruntime"
    assert manifest["precision"] == "bf16"
    assert manifest["executed"] is True
    assert manifest["limits"] == {"max_batch_size": 8, "max_seq_len": 256, "chunk_tokens": 128}
    assert manifest["model"]["model_type"] == "nemotron_h"
    assert set(manifest["files"]) == {
        path.relative_to(engine).as_posix() for path in engine.rglob("*") if path.is_file()
    } - {"engine.json"}


def test_the_engine_stands_alone(engine: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(engine, tmp_path / "elsewhere"))
    result = run("generate", moved, "Debian", "--max-tokens", 4)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "damage",
    [
        lambda e: (e / "model.onnx.data").write_bytes(
            (e / "model.onnx.data").read_bytes()[:-1] + b"\x55"
        ),
        lambda e: (e / "model.onnx").write_bytes(b""),
        lambda e: (e / "tokenizer.json").unlink(),
        lambda e: (e / "extra.bin").write_bytes(b"1"),
        lambda e: (e / "engine.json").write_text("{"),
        lambda e: (e / "engine.json").write_text(
            (e / "engine.json").read_text().replace('"schema_version": 1', '"schema_version": 2')
        ),
        lambda e: (e / "engine.json").unlink(),
    ],
    ids=["weights", "graph", "missing", "added", "manifest", "schema", "no-manifest"],
)
@pytest.mark.parametrize("command", [("inspect",), ("generate", "x")], ids=["inspect", "generate"])
def test_a_changed_engine_is_refused(engine: Path, damage: Any, command: tuple[str, ...]) -> None:
    damage(engine)
    result = run(command[0], engine, *command[1:])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_manifest_that_points_outside_is_refused(engine: Path) -> None:
    manifest = json.loads((engine / "engine.json").read_text())
    manifest["files"]["../secret"] = manifest["files"]["config.json"]
    (engine / "engine.json").write_text(json.dumps(manifest))
    result = run("inspect", engine)
    assert result.exit_code == 1
    assert "outside the folder" in result.stderr


def test_existing_output_needs_force(engine: Path) -> None:
    result = run("build", "tiny", "-o", engine)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert run("build", "tiny", "-o", engine, "--force").exit_code == 0
    assert run("inspect", engine).exit_code == 0


def test_json_is_one_object_on_stdout(tmp_path: Path) -> None:
    result = run("build", "tiny", "-o", tmp_path / "e", "--json", "--precision", "int8-wo")
    assert json.loads(result.stdout)["precision"] == "int8-wo"


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = run("build", "tiny", "--gpu", "a10g", "-o", tmp_path / "e", "--dry-run")
    assert result.exit_code == 0
    assert "tensorrt" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "not a folder"),
        (["tiny", "--gpu", "h100", "--precision", "bf16"], 3, "nemotrt[tensorrt]"),
        (["tiny", "--gpu", "a10g", "--precision", "fp8"], 2, "no FP8"),
        (["tiny", "--gpu", "rtx6090"], 2, "rtx6090"),
        (["tiny", "--backend", "tensorrt"], 2, "--gpu"),
        (["tiny", "--backend", "onnxruntime", "--gpu", "a10g"], 2, "leave out --gpu"),
        (
            ["tiny", "--backend", "onnxruntime", "--precision", "fp8"],
            2,
            "does not build fp8: it has",
        ),
        (["tiny", "--precision", "int3"], 2, "int3"),
        (["tiny", "--backend", "native", "--exact"], 2, "--exact is for backend onnxruntime"),
        (["tiny", "--max-batch-size", "0"], 2, "max-batch-size"),
        (["tiny", "--chunk-tokens", "64", "--max-seq-len", "32"], 2, "exceeds max_seq_len"),
    ],
)
def test_bad_choices(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    result = run("build", *arguments, "-o", tmp_path / "e")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def damage_nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.layers.1.mixer.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors")


def edit_config(change: dict[str, Any]) -> Any:
    def edit(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text()) | change
        (folder / "config.json").write_text(json.dumps(raw))

    return edit


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda f: os.truncate(f / "model.safetensors", 4000), 1, "truncated"),
        (lambda f: (f / "model.safetensors").unlink(), 1, "neither model.safetensors nor"),
        (damage_nan, 1, "holds 1 NaN"),
        (edit_config({"model_type": "mamba"}), 2, "model_type 'mamba'"),
        (edit_config({"layers_block_type": ["moe"], "n_group": 5}), 2, "n_group (5) must divide"),
        (edit_config({"vocab_size": None}), 2, "vocab_size is missing"),
        (edit_config({"hidden_size": 52}), 1, "config.json implies"),
    ],
)
def test_bad_checkpoints(damage: Any, code: int, message: str, tmp_path: Path) -> None:
    source = reference.save(reference.nemotron_h(), tmp_path / "c")
    damage(source)
    result = run("build", source, "-o", tmp_path / "e")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_no_tokenizer_still_generates_from_ids(tmp_path: Path) -> None:
    source = reference.save(reference.nemotron_h(), tmp_path / "c")
    assert run("build", source, "-o", tmp_path / "e", "--precision", "fp32").exit_code == 0
    result = run("generate", tmp_path / "e", "--prompt-ids", "5,9,11", "--max-tokens", 6)
    assert result.exit_code == 0
    assert len(result.stdout.strip().split(",")) == 6
    result = run("generate", tmp_path / "e", "Hello")
    assert result.exit_code == 2
    assert "no tokenizer; give --prompt-ids" in result.stderr


def test_disk_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nemotrt.engines.artefact import manifest

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(manifest, "digests", full)
    result = run("build", "tiny", "-o", tmp_path / "e")
    assert result.exit_code == 3
    assert "no space left" in result.stderr.lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root to mount")
def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        result = run("build", "tiny", "-o", disk / "e")
        assert result.exit_code == 3
        assert "no space left" in result.stderr.lower()
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_ctrl_c_during_a_build(tmp_path: Path) -> None:
    source = TINY_MODELS["tiny"]
    target = tmp_path / "out" / "e"
    command = [sys.executable, "-m", "nemotrt", "build", source, "--gpu", "a100", "-o", target]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("out/.e.partial-*/model.onnx")) and time.monotonic() < deadline:
        assert process.poll() is None, "the build ended before it could be interrupted"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in stderr and "Traceback" not in stderr
    assert list((tmp_path / "out").iterdir()) == []
