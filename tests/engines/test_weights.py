"""Engines move: every backend's finds its weights, or says by name why not and what helps."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.artefact.weights import VARIABLE, Rule, find_weights
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.errors import ArtefactError
from support import movable, reference
from support.movable import HOLDS, READS, generate

UNUSED = "mtp.layers.0.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], tuple[Path, Path, str]]:
    """Return a function: backend, folder -> its checkpoint, engine and tokens, to be damaged."""
    root = tmp_path_factory.mktemp("made")
    source = reference.save(reference.nemotron_h("M-*M-"), root / "source")
    tensors = load_file(source / "model.safetensors")
    unused = tensors["lm_head.weight"][:3].copy()
    save_file(tensors | {UNUSED: unused}, source / "model.safetensors", {"format": "pt"})
    tokens: dict[str, str] = {}

    def make(backend: str, folder: Path) -> tuple[Path, Path, str]:
        checkpoint, engine = folder / "checkpoint", folder / "engine"
        shutil.copytree(source, checkpoint)
        movable.write(backend, checkpoint, engine)
        if backend not in tokens:
            found = generate(backend, engine)
            assert found.exit_code == 0, found.output
            tokens[backend] = found.stdout
        return checkpoint, engine, tokens[backend]

    return make


def flip(checkpoint: Path, tensor: str) -> None:
    """Change one byte of a tensor."""
    ref = open_checkpoint(checkpoint)[tensor]
    raw = bytearray(ref.path.read_bytes())
    raw[ref.offset] ^= 1
    ref.path.write_bytes(raw)


@pytest.mark.parametrize("backend", READS)
def test_a_moved_checkpoint_is_pointed_to(backend, made, tmp_path, monkeypatch) -> None:
    checkpoint, engine, tokens = made(backend, tmp_path)
    moved = checkpoint.rename(tmp_path / "elsewhere")
    refused = generate(backend, engine)
    assert refused.exit_code == 1 and refused.stdout == ""
    assert f"{checkpoint}, which holds the engine's weights, is missing" in refused.stderr
    assert "--checkpoint PATH or $NEMOTRT_CHECKPOINT" in refused.stderr
    assert generate(backend, engine, "--checkpoint", moved).stdout == tokens
    monkeypatch.setenv(VARIABLE, str(moved))
    assert generate(backend, engine).stdout == tokens
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    refused = generate(backend, engine)
    assert refused.exit_code == 2 and f"${VARIABLE}: checkpoint" in refused.stderr
    assert generate(backend, engine, "--checkpoint", moved).stdout == tokens  # the option first


@pytest.mark.parametrize("backend", READS)
def test_a_changed_tensor_is_refused_by_name_and_an_unused_one_is_not(
    backend, made, tmp_path
) -> None:
    checkpoint, engine, tokens = made(backend, tmp_path)
    assert UNUSED not in read_manifest(engine).weights
    flip(checkpoint, UNUSED)
    assert generate(backend, engine).stdout == tokens
    flip(checkpoint, "lm_head.weight")
    refused = generate(backend, engine)
    assert refused.exit_code == 1 and "tensor lm_head.weight of" in refused.stderr
    assert f"{checkpoint} has changed since the build" in refused.stderr
    refused = generate(backend, engine, "--checkpoint", checkpoint)
    assert refused.exit_code == 1 and "is not the checkpoint that" in refused.stderr


@pytest.mark.parametrize("backend", (*HOLDS, *READS))
def test_another_model_is_refused_with_what_differs(backend, made, tmp_path, monkeypatch) -> None:
    _, engine, tokens = made(backend, tmp_path)
    wider = reference.save(reference.nemotron_h("M-*M-", intermediate_size=96), tmp_path / "wide")
    refused = generate(backend, engine, "--checkpoint", wider)
    assert refused.exit_code == 1
    assert "intermediate_size is 96, the engine's 80" in refused.stderr
    other = reference.save(reference.nemotron_h("M-*-"), tmp_path / "short")
    refused = generate(backend, engine, "--checkpoint", other)
    assert refused.exit_code == 1 and "layers is M-*-, the engine's M-*M-" in refused.stderr
    refused = generate(backend, engine, "--checkpoint", tmp_path / "nowhere")
    assert refused.exit_code == 2 and "is not a folder" in refused.stderr
    monkeypatch.setenv(VARIABLE, str(wider))
    found = generate(backend, engine)
    if backend in READS:
        assert found.exit_code == 1 and f"${VARIABLE} {wider}" in found.stderr
    else:  # it is for engines that read one; this one computes the same whatever it says
        assert found.stdout == tokens


@pytest.mark.parametrize("backend", HOLDS)
def test_an_engine_that_holds_its_weights_needs_no_checkpoint(backend, made, tmp_path) -> None:
    checkpoint, engine, tokens = made(backend, tmp_path)
    assert generate(backend, engine, "--checkpoint", checkpoint).stdout == tokens
    shutil.rmtree(checkpoint)
    assert generate(backend, engine).stdout == tokens


@pytest.mark.parametrize("backend", READS)
def test_another_configuration_of_the_same_model_is_said(backend, made, tmp_path) -> None:
    checkpoint, engine, _ = made(backend, tmp_path)
    text = (checkpoint / "config.json").read_text()
    (checkpoint / "config.json").write_text(text + "\n")
    refused = generate(backend, engine)
    assert refused.exit_code == 1 and "the same model, but another config.json" in refused.stderr


def test_a_bundle_of_an_earlier_release_has_no_digests_and_is_not_believed(made, tmp_path) -> None:
    _, engine, _ = made("tensorrt-llm", tmp_path)
    manifest = json.loads((engine / "engine.json").read_text())
    manifest["weights"] = {}
    (engine / "engine.json").write_text(json.dumps(manifest))
    refused = generate("tensorrt-llm", engine)
    assert refused.exit_code == 1 and "build the engine again" in refused.stderr


@pytest.mark.parametrize("told", ["../checkpoint", "a/../../b", "."])
def test_a_relative_place_lies_inside_the_engine(told, made, tmp_path) -> None:
    _, engine, _ = made("tensorrt", tmp_path)
    manifest = read_manifest(engine)
    entry = manifest.checkpoint.model_copy(update={"path": told})
    with pytest.raises(ArtefactError, match="outside the folder"):
        find_weights(engine, manifest.model_copy(update={"checkpoint": entry}))


def test_the_rule_is_told(made, tmp_path, monkeypatch) -> None:
    checkpoint, engine, _ = made("tensorrt", tmp_path)
    manifest = read_manifest(engine)
    assert find_weights(engine, manifest) == (checkpoint, Rule.BUILT)
    monkeypatch.setenv(VARIABLE, str(checkpoint))
    assert find_weights(engine, manifest) == (checkpoint, Rule.VARIABLE)
    assert find_weights(engine, manifest, str(checkpoint)) == (checkpoint, Rule.OPTION)
    (engine / "checkpoint").mkdir()
    entry = manifest.checkpoint.model_copy(update={"path": "checkpoint"})
    packed = manifest.model_copy(update={"checkpoint": entry})  # it needs no variable
    assert find_weights(engine, packed) == (engine / "checkpoint", Rule.PACKED)
    assert find_weights(engine, packed, str(checkpoint)) == (checkpoint, Rule.OPTION)
