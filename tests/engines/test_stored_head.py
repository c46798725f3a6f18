"""A head that is stored beside `tie_word_embeddings: true`: we take what transformers takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends.tensorrt_llm_1_2.conversion import Rank, linears
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.tensor_names import model_names
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.profiles.planning.memory.weights import num_parameters
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.quantize.quality.evaluate import evaluate
from support import reference

MODELS = {"nemotron_h": reference.nemotron_h, "qwen3": reference.qwen3}
TOKENS = [3, 17, 5, 80, 41]
Heads = Callable[[torch.Tensor], torch.Tensor | None]
HEADS: dict[str, Heads] = {
    "differs": lambda table: torch.roll(table, 1, 0),
    "another type": lambda table: torch.roll(table, 1, 0).bfloat16(),
    "equal": lambda table: table.clone(),
}


@pytest.fixture(params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint that config.json calls tied, written by transformers."""
    model = MODELS[request.param](tie_word_embeddings=True)
    reference.save(model, tmp_path / "ckpt")
    assert json.loads((tmp_path / "ckpt/config.json").read_text())["tie_word_embeddings"] is True
    return tmp_path / "ckpt"


def store(folder: Path, **changes: Any) -> None:
    """Put tensors into the folder's file; None takes one away."""
    path = folder / "model.safetensors"
    kept = load_file(path) | changes
    save_file({name: t for name, t in kept.items() if t is not None}, path, {"format": "pt"})


def embedding_name(folder: Path) -> str:
    return next(name for name in load_file(folder / "model.safetensors") if "embed" in name)


def with_head(folder: Path, kind: str) -> Path:
    table = load_file(folder / "model.safetensors")[embedding_name(folder)]
    store(folder, **{"lm_head.weight": HEADS[kind](table)})
    return folder


def test_transformers_own_save_is_read(folder: Path, tmp_path: Path) -> None:
    """nemotron_h's has a head of its own, qwen3's none."""
    check_engine(folder, tmp_path, "native")


def check_engine(folder: Path, tmp_path: Path, backend: str) -> None:
    build_engine(folder, tmp_path / "engine", BuildSpec(backend, limits=Limits(1, 16, 8)))
    engine = open_engine(tmp_path / "engine").engine
    found = engine.step([Feed(engine.allocate(), TOKENS)])[0]
    expected = reference.logits(reference.load(folder), TOKENS)[-1]
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-3)
    engine.close()


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
def test_an_engine_has_the_head_that_transformers_has(
    folder: Path, kind: str, backend: str, tmp_path: Path
) -> None:
    check_engine(with_head(folder, kind), tmp_path, backend)
    found = json.loads((tmp_path / "engine/config.json").read_text())
    assert found["tie_word_embeddings"] is (kind == "equal")
    plan = load_model(str(folder)), load_model(str(tmp_path / "engine"))
    assert plan[0].tie_word_embeddings == plan[1].tie_word_embeddings == (kind == "equal")


@pytest.mark.parametrize("kind", HEADS)
def test_the_plan_counts_the_weights_that_transformers_has(folder: Path, kind: str) -> None:
    model = reference.load(with_head(folder, kind))
    expected = sum(parameter.numel() for parameter in model.parameters())
    if kind == "equal" and model.lm_head.weight is not model.get_input_embeddings().weight:
        expected -= model.lm_head.weight.numel()  # two copies of the same values
    assert num_parameters(load_model(str(folder))) == expected


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_a_quantized_folder_keeps_the_head_and_says_so(
    folder: Path, layout: str, tmp_path: Path
) -> None:
    head = load_file(with_head(folder, "differs") / "model.safetensors")["lm_head.weight"]
    target = tmp_path / "q"
    command = ["quantize", str(folder), "--recipe", "int8-wo", "--format", layout]
    result = CliRunner().invoke(main, [*command, "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert "lm_head.weight is stored and differs" in result.stderr
    quantized = open_checkpoint(target)
    np.testing.assert_array_equal(quantized.floats("lm_head.weight"), head.numpy())
    assert model_names(quantized.config).lm_head == "lm_head.weight"
    # Engines that believe the flag find the head all the same.
    assert json.loads((target / "config.json").read_text())["tie_word_embeddings"] is False
    seen = CliRunner().invoke(main, ["inspect", str(target), "--source", str(folder)])
    assert seen.exit_code == 0, seen.output


def test_evaluation_runs_the_stored_head(folder: Path) -> None:
    """exp of the mean loss, by transformers."""
    with_head(folder, "differs")
    rows = np.arange(40).reshape(4, 10) % 96
    found = evaluate(folder, folder, {"text": rows})
    with torch.no_grad():
        ids = torch.tensor(rows)
        loss = reference.load(folder)(ids, labels=ids, use_cache=False).loss
    assert found.texts[0].reference_perplexity == pytest.approx(float(loss.exp()), rel=1e-4)


def test_bundles_have_the_stored_head_or_refuse(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(with_head(folder, "differs"))
    if checkpoint.config.mamba is not None:
        head = next(
            linear for linear in linears(checkpoint, Rank(0, 1)) if linear.name == "lm_head"
        )
        assert [part.name for part in head.parts] == ["lm_head.weight"]
    command = ["build", str(folder), "--backend", "tensorrt-llm", "--gpu", "h100"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "bundle")])
    assert result.exit_code == 2
    words = " ".join(result.stderr.split())
    assert "set tie_word_embeddings to false" in words, words
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "bundle")])
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("model", ["qwen3"])
def test_a_folder_with_the_head_alone_is_tied_the_other_way(model: str, tmp_path: Path) -> None:
    folder = reference.save(MODELS[model](tie_word_embeddings=True), tmp_path / "ckpt")
    name = embedding_name(folder)
    table = load_file(folder / "model.safetensors")[name]
    store(folder, **{name: None, "lm_head.weight": table})
    check_engine(folder, tmp_path, "native")
