"""`--lora` of build and quantize: the commands, and what they write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.lora.merged import MergedRef, open_merged
from nemotrt.engines.checkpoint.lora.merging import Merging
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.quantize.writing.merged import write_merged
from support import lora

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
TOKENS = [5, 100, 7, 9, 300]
TINY = TINY_MODELS["tiny"]


def run(*words: object) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("adapter") / "pirate"
    return lora.write_adapter(TINY, target, target_modules=lora.HYBRID, size=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
def test_an_engine_of_merged_weights_answers_as_peft(
    backend: str, adapter: Path, tmp_path: Path
) -> None:
    base = lora.float32_copy(TINY, tmp_path / "base")
    model = lora.loaded(base, adapter)
    with torch.no_grad():
        want = model(torch.tensor([TOKENS])).logits[0, -1].numpy()
        plain = lora.base_model(base)(torch.tensor([TOKENS])).logits[0, -1].numpy()
    spec = BuildSpec(backend, limits=Limits(1, 32, 8), lora=(Merging(adapter),))
    manifest = build_engine(base, tmp_path / "engine", spec)
    assert manifest.options["lora"] == str(adapter)
    engine = open_engine(tmp_path / "engine").engine
    found = engine.step([Feed(engine.allocate(), TOKENS)])[0]
    engine.close()
    np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want).max())
    assert np.abs(found - plain).max() > 0.1


def test_quantizing_with_an_adapter_is_quantizing_what_it_gives(
    adapter: Path, tmp_path: Path
) -> None:
    write_merged(open_merged(TINY, [Merging(adapter)]), tmp_path / "merged")
    words = ("--recipe", "int8-wo", "--quiet")
    assert run("quantize", TINY, "--lora", adapter, *words, "-o", tmp_path / "a").exit_code == 0
    assert run("quantize", tmp_path / "merged", *words, "-o", tmp_path / "b").exit_code == 0
    [mine, theirs] = (load_file(tmp_path / x / "model.safetensors") for x in "ab")
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        np.testing.assert_array_equal(value.view(np.uint8), theirs[name].view(np.uint8))
    record = json.loads((tmp_path / "a" / "nemotrt_quantize.json").read_text())
    assert record["lora"] == [str(adapter)] == record["settings"]["lora"]


@pytest.mark.slow
def test_a_calibration_is_of_the_merged_model(adapter: Path, tmp_path: Path) -> None:
    calibration = tmp_path / "calibration"
    words = ("--recipe", "int8-sq", "--calibration", calibration, "--quiet")
    words = (*words, "--sequences", "2", "--sequence-tokens", "16", "--lora", adapter)
    done = run("quantize", TINY, *words, "-o", tmp_path / "a")
    assert done.exit_code == 0, done.output
    again = run("quantize", TINY, *words[:5], "-o", tmp_path / "b")
    assert again.exit_code == 2
    assert "made for another checkpoint" in again.output


def test_a_gpus_engine_holds_the_merged_checkpoint(adapter: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    words = ("--backend", "tensorrt-llm", "--gpu", "a100", "--lora", f"{adapter}=0.5", "-o", target)
    done = run("build", TINY, *words, "--max-batch-size", 2, "--max-seq-len", 64)
    assert done.exit_code == 0, done.output
    assert "merged into the weights: pirate (0.5)" in done.output
    wanted = open_merged(TINY, [Merging(adapter, 0.5)])
    found = open_checkpoint(target / "checkpoint")
    assert any(isinstance(ref, MergedRef) for ref in wanted.tensors.values())
    for name, ref in wanted.tensors.items():
        np.testing.assert_array_equal(found[name].map(), ref.map())
    assert json.loads((target / "engine.json").read_text())["checkpoint"]["path"] == "checkpoint"
    told = run("inspect", target)
    assert told.exit_code == 0, told.output


def test_a_quantized_checkpoint_is_refused_with_the_cure(adapter: Path, tmp_path: Path) -> None:
    assert run("quantize", TINY, "--recipe", "int8-wo", "-o", tmp_path / "q").exit_code == 0
    done = run("build", tmp_path / "q", "--lora", adapter, "-o", tmp_path / "engine")
    assert done.exit_code == 2
    assert "nemotrt quantize BASE --lora DIR" in done.output
    assert not (tmp_path / "engine").exists()
    done = run("quantize", tmp_path / "q", "--lora", adapter, "-o", tmp_path / "r")
    assert done.exit_code == 2
    assert "quantized already" in done.output


def test_no_adapter_is_read_twice_or_replaced(adapter: Path, tmp_path: Path) -> None:
    done = run(
        "quantize", TINY, "--recipe", "int8-wo", "--lora", adapter, "-o", adapter.parent, "--force"
    )
    assert done.exit_code == 2
    assert "which is read" in done.output
    missing = run("build", TINY, "--lora", tmp_path / "none", "-o", tmp_path / "engine")
    assert missing.exit_code == 2
    assert "is no LoRA adapter" in missing.output


def test_the_tiny_model_in_bfloat16_is_rounded_once(adapter: Path) -> None:
    found = open_merged(TINY, [Merging(adapter)])
    name = next(n for n, ref in found.tensors.items() if isinstance(ref, MergedRef))
    ref = found[name]
    assert isinstance(ref, MergedRef)
    [(change, weight)] = ref.changes
    exact = ref.stored.map().astype(np.float64) + weight * change.change(slice(None))
    error = np.abs(ref.map().astype(np.float64) - exact)
    assert (error <= np.abs(exact) * 2**-8 + 1e-7).all()
    assert Precision.BF16.floats.numpy == ref.map().dtype
