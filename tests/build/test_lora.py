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
from nemotrt.engines.checkpoint.gguf.file import read_gguf
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
    check_quantized(adapter, tmp_path, "--recipe", "int8-wo")
    record = json.loads((tmp_path / "a" / "nemotrt_quantize.json").read_text())
    assert record["lora"] == [str(adapter)] == record["settings"]["lora"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--mixed",), ("--budget-gib", "0.007"), ("--compensate",)])
def test_what_is_measured_before_is_of_the_merged_model(
    more: tuple[str, ...], adapter: Path, tmp_path: Path
) -> None:
    plain = check_quantized(adapter, tmp_path, "--recipe", "int4-wo", *more)
    assert run("quantize", TINY, *plain, "-o", tmp_path / "plain").exit_code == 0
    [mine, others] = (load_file(tmp_path / x / "model.safetensors") for x in ("a", "plain"))
    assert mine.keys() != others.keys() or any(
        value.tobytes() != others[name].tobytes() for name, value in mine.items()
    )


def check_quantized(adapter: Path, folder: Path, *words: str) -> tuple[str, ...]:
    """Compare a quantized sum with a sum that was written and then quantized; return the words."""
    write_merged(open_merged(TINY, [Merging(adapter)]), folder / "merged")
    words = (*words, "--quiet")
    for source, lora_words, target in ((TINY, ("--lora", adapter), "a"), ("merged", (), "b")):
        done = run("quantize", folder / source, *lora_words, *words, "-o", folder / target)
        assert done.exit_code == 0, done.output
    [mine, theirs] = (load_file(folder / x / "model.safetensors") for x in "ab")
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        np.testing.assert_array_equal(value.view(np.uint8), theirs[name].view(np.uint8))
    return words


@pytest.mark.parametrize("recipe", ["int8-wo", "int4-wo"])
def test_a_gguf_file_holds_the_merged_weights(recipe: str, adapter: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    write_merged(open_merged(TINY, [Merging(adapter, 0.5)]), merged)
    words = ("--recipe", recipe)
    told = run("quantize", TINY, "--lora", f"{adapter}=0.5", *words, "-o", tmp_path / "a.gguf")
    assert told.exit_code == 0, told.output
    assert "merged into the weights: pirate (0.5)" in told.output
    assert run("quantize", merged, *words, "-o", tmp_path / "b.gguf").exit_code == 0
    assert run("quantize", TINY, *words, "-o", tmp_path / "plain.gguf").exit_code == 0
    [mine, theirs, plain] = (stored_bytes(tmp_path / f"{x}.gguf") for x in ("a", "b", "plain"))
    assert mine == theirs
    assert mine.keys() == plain.keys()
    changed = {name for name, value in mine.items() if value != plain[name]}
    assert changed and all(name.startswith("blk.") for name in changed)


def stored_bytes(path: Path) -> dict[str, bytes]:
    """Return the bytes of each tensor of a GGUF file."""
    raw = path.read_bytes()
    tensors = read_gguf(path).tensors.items()
    return {name: raw[ref.offset : ref.offset + ref.num_bytes] for name, ref in tensors}


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
    words = ("--recipe", "int8-wo", "--lora", adapter, "-o", tmp_path / "r")
    done = run("quantize", tmp_path / "q", *words)
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
