"""A checkpoint in the place of an engine: built once, kept for what it was built of, whole."""

import hashlib
import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotrt.build import cached
from nemotrt.build.cached import cached_engine
from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.files import user_cache

GENERATE = ("generate", "tiny", "The Debian package", "--max-tokens", "4")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, but for the compiled step."""
    compiled = user_cache.user_cache()
    folder = tmp_path / "cache"
    (folder / "nemotrt").mkdir(parents=True, mode=0o700)
    (folder / "nemotrt/native").symlink_to(compiled / "native")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "nemotrt" / "engines"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY_MODELS["tiny"], tmp_path / "my model"))


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [*words])
    assert result.exit_code == code, result.output
    return result


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def test_it_is_built_once_and_said(cache: Path, tmp_path: Path) -> None:
    first = run(*GENERATE)
    [folder] = folders(cache)
    assert folder.name.startswith("tiny-")
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    assert f"building {folder} for the CPU" in first.stderr
    assert f"built {folder}: {size:.2f} MB" in first.stderr
    before = (folder / "engine.json").stat().st_mtime_ns
    second = run(*GENERATE)
    assert "built before" in second.stderr and "building" not in second.stderr
    assert second.stdout == first.stdout
    assert (folder / "engine.json").stat().st_mtime_ns == before
    # and as an engine that `nemotrt build` makes
    run("build", "tiny", "-o", str(tmp_path / "own"))
    assert run("generate", str(tmp_path / "own"), *GENERATE[2:]).stdout == first.stdout
    assert read_manifest(folder).facts == read_manifest(tmp_path / "own").facts


def test_rebuild_and_damage_build_it_anew(cache: Path) -> None:
    run(*GENERATE)
    [folder] = folders(cache)
    assert "building" in run(*GENERATE, "--rebuild").stderr
    data = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= 1
    data.write_bytes(raw)
    assert "building" in run(*GENERATE).stderr
    (folder / "engine.json").write_text("{}")
    assert "building" in run(*GENERATE).stderr
    assert folders(cache) == [folder]
    refused = run("generate", str(folder), "The", "--rebuild", code=2)
    assert "--rebuild is for checkpoints" in refused.stderr
    refused = run("profile", "http://127.0.0.1:9", "--rebuild", "--tokenizer", "tiny", code=2)
    assert "--rebuild is for checkpoints" in refused.stderr


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer_config.json"])
def test_what_an_engine_is_made_of_changes_its_place(
    cache: Path, checkpoint: Path, name: str
) -> None:
    """Also a weight in a file of the same layout, which a fingerprint does not see."""
    first = cached_engine(str(checkpoint))
    assert first.name.startswith("my-model-") and cached_engine(str(checkpoint)) == first
    path = checkpoint / name
    if name == "model.safetensors":
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"a_new_key": 1}))
    second = cached_engine(str(checkpoint))
    assert second != first and folders(cache) == sorted([first, second])


def test_what_an_engine_is_not_made_of_keeps_it(cache: Path, checkpoint: Path) -> None:
    first = cached_engine(str(checkpoint))
    (checkpoint / "README.md").write_text("a card")
    assert cached_engine(str(checkpoint)) == first
    (checkpoint.parent / "elsewhere").mkdir()
    moved = checkpoint.rename(checkpoint.parent / "elsewhere/my model")
    assert cached_engine(str(moved)) == first


def test_another_version_builds_its_own(
    cache: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_engine(str(checkpoint))
    monkeypatch.setattr(cached, "version", lambda name: "99.0")
    assert cached_engine(str(checkpoint)) != first


def test_a_payload_that_is_no_longer_read_is_built_again(cache: Path, checkpoint: Path) -> None:
    """Of an earlier state of the same version: whole, in a form of its own. Else it is told."""
    folder = cached_engine(str(checkpoint))
    program, manifest = folder / "program.json", folder / "engine.json"
    before = program.read_text()
    digest, size = hashlib.sha256(program.read_bytes()).hexdigest(), program.stat().st_size
    program.write_text(before.replace('"panels_', '"older_panels_'))
    told = manifest.read_text().replace(digest, hashlib.sha256(program.read_bytes()).hexdigest())
    manifest.write_text(told.replace(f": {size}", f": {program.stat().st_size}"))
    for words in (("generate", str(folder), "x"), ("inspect", str(folder))):
        result = run(*words, code=1)
        assert "older_panels_" in result.stderr and "Build the engine again." in result.stderr
    assert cached_engine(str(checkpoint)) == folder
    assert program.read_text() == before


def test_a_dry_run_builds_nothing(cache: Path, tmp_path: Path) -> None:
    for words in (
        ("serve", "tiny", "--no-triton", "--run-dir", str(tmp_path / "run")),
        ("profile", "tiny", "-n", "1", "-o", str(tmp_path / "p")),
    ):
        result = run(*words, "--dry-run")
        assert f"would build {cache}" in result.stderr
        assert not cache.exists() and not (tmp_path / "run").exists()


def test_a_disk_that_is_too_small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    result = run(*GENERATE, code=3)
    assert "XDG_CACHE_HOME" in result.stderr and "1.00 MB free" in result.stderr
    assert not folders(cache)


def test_a_build_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, manifest: object) -> None:
        raise EnvironmentUnfitError("no more")

    monkeypatch.setattr("nemotrt.build.engine_builder.write_manifest", fail)
    assert "no more" in run(*GENERATE, code=3).stderr
    assert not folders(cache)


def _build(target: str, lines: "multiprocessing.Queue[str]") -> None:
    said: list[str] = []
    cached_engine(target, say=said.append)
    lines.put("\n".join(said))


def test_two_processes_build_one(cache: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    lines: multiprocessing.Queue[str] = spawn.Queue()
    both = [spawn.Process(target=_build, args=("tiny", lines)) for _ in range(2)]
    for process in both:
        process.start()
    said = sorted(lines.get(timeout=300) for _ in both)
    for process in both:
        process.join()
    assert [sum("building" in text for text in said), len(folders(cache))] == [1, 1]
    assert sum("built before" in text for text in said) == 1


def test_an_engine_whose_weights_stay_follows_its_checkpoint(
    cache: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes elsewhere have the same place; where it points is what is given."""
    monkeypatch.setattr(cached, "default_backend", lambda gpu: ("onnxruntime", ""))
    first = cached_engine(str(checkpoint))
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy/my model"))
    shutil.rmtree(checkpoint)
    second = cached_engine(str(copy))
    assert second == first
    run("generate", str(copy), "The", "--max-tokens", "1")
    manifest = read_manifest(second)
    assert not manifest.weights or manifest.checkpoint.path == str(copy)
