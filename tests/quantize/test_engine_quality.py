"""An engine against its reference, through its own steps."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends.onnxruntime.options import OnnxRuntimeOptions
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.quality.evaluate import evaluate, num_steps
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.reference import from_folder

TOKENS = {"x": np.arange(5 * 24).reshape(5, 24) * 7 % 96, "y": np.arange(24).reshape(1, 24)}
LIMITS = Limits(max_batch_size=3, max_seq_len=23, chunk_tokens=1)  # the last token isn't fed
TINY = TINY_MODELS["tiny"]


@pytest.fixture(scope="session")
def source(make_checkpoint: Callable[..., Path]) -> Path:
    folder = make_checkpoint()
    (folder / "tokenizer.json").unlink()
    return folder


def built(source: Path, target: Path, precision: Precision, limits: Limits = LIMITS) -> Path:
    build_engine(
        source,
        target,
        BuildSpec(precision=precision, limits=limits, options=OnnxRuntimeOptions(True)),
    )
    return target


def test_a_float32_engine_is_its_checkpoint(source: Path, tmp_path: Path) -> None:
    """Five sequences over three slots; perplexity is transformers'."""
    engine = built(source, tmp_path / "engine", Precision.FP32)
    done: list[int] = []
    quality = evaluate(source, engine, TOKENS, done.append)
    assert sum(done) == num_steps(source, engine, TOKENS) == 6 + 6 * 23
    assert (quality.backend, quality.precision) == ("onnxruntime", "fp32")
    assert quality.layers == quality.linears == ()
    model = from_folder(source)
    for text in quality.texts:
        rows = torch.from_numpy(TOKENS[text.name])
        with torch.no_grad():
            logits = model(rows, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 96), rows[:, 1:].reshape(-1))
        for found in (text.perplexity, text.reference_perplexity):
            assert found == pytest.approx(float(loss.exp()), rel=1e-5)
        assert abs(text.mean_kl_divergence) < 1e-6 and text.top1_agreement == 1
        assert text.num_tokens == rows[:, 1:].numel()


def test_an_int8_engine_is_as_good_as_its_checkpoint(source: Path, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "q", load_recipe("int8-wo"))
    engine = built(tmp_path / "q", tmp_path / "engine", Precision.INT8_WO)
    by_engine, by_checkpoint = (
        evaluate(source, candidate, TOKENS) for candidate in (engine, tmp_path / "q")
    )
    for one, other in zip(by_engine.texts, by_checkpoint.texts, strict=True):
        assert one.perplexity == pytest.approx(other.perplexity, rel=1e-4)
        assert one.mean_kl_divergence == pytest.approx(other.mean_kl_divergence, rel=0.2)
        assert one.mean_kl_divergence > 0


def test_the_int8_engine_has_the_logits_of_compressed_tensors(source: Path, tmp_path: Path) -> None:
    """The engine reads ModelOpt's layout, transformers the other through compressed-tensors."""
    recipe = load_recipe("int8-wo")
    for layout in CheckpointFormat:
        quantize_checkpoint(source, tmp_path / layout, recipe, QuantizeOptions(layout=layout))
    folder = built(tmp_path / CheckpointFormat.MODELOPT, tmp_path / "engine", Precision.INT8_WO)
    engine = open_engine(folder).engine
    slot, row = engine.allocate(), TOKENS["x"][0, : LIMITS.max_seq_len]
    found = np.concatenate([engine.step([Feed(slot, [int(token)])]) for token in row])
    engine.close()
    model = from_folder(tmp_path / CheckpointFormat.COMPRESSED_TENSORS)
    with torch.no_grad():
        expected = model(torch.from_numpy(row[None]), use_cache=False).logits[0].numpy()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 1e-5
    with torch.no_grad():
        plain = from_folder(source)(torch.from_numpy(row[None]), use_cache=False).logits[0].numpy()
    assert np.linalg.norm(plain - expected) / np.linalg.norm(expected) > 20 * error


def test_another_model_and_too_long_sequences_are_refused(
    source: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    engine = built(source, tmp_path / "engine", Precision.FP32, Limits(2, 22, 1))
    with pytest.raises(ConfigError, match="--sequence-tokens 23 or less"):
        evaluate(source, engine, TOKENS)
    with pytest.raises(ConfigError, match="engine of another model"):
        evaluate(make_checkpoint("qwen3"), engine, TOKENS)
    with pytest.raises(ConfigError, match="--against takes the checkpoint"):
        evaluate(engine, source, TOKENS)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_the_command_takes_an_engine(tmp_path: Path) -> None:
    engine = built(TINY, tmp_path / "engine", Precision.FP32)
    text = tmp_path / "short.txt"
    text.write_text("A short text, which is long enough for one sequence of sixteen tokens. " * 4)
    arguments = [engine, "--against", "tiny", "--text", text, "--sequence-tokens", 16]
    page = tmp_path / "page.html"
    result = run(*arguments, "--json", "--page", page)
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert value["backend"] == "onnxruntime" and value["layers"] == value["linears"] == []
    assert value["texts"][0]["top1_agreement"] == 1
    assert "logits only" in page.read_text() and "<svg" not in page.read_text()
    assert "An engine shows logits only" in run(*arguments).stdout
    (engine / "model.onnx").write_bytes(b"")
    damaged = run(*arguments)
    assert damaged.exit_code == 1 and "has changed since the build" in damaged.stderr
    assert run("tiny", "--against", engine, *arguments[3:]).exit_code == 2


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(TINY, other)
    raw = json.loads((other / "tokenizer.json").read_text())
    vocab = raw["model"]["vocab"]
    names = [name for name in vocab if name.isascii() and name.isalpha()][:2]
    vocab[names[0]], vocab[names[1]] = vocab[names[1]], vocab[names[0]]
    (other / "tokenizer.json").write_text(json.dumps(raw))
    engine = built(other, tmp_path / "engine", Precision.FP32)
    with pytest.raises(ConfigError, match="another tokenizer"):
        evaluate(TINY, engine, {"x": np.array([[vocab[names[0]], vocab[names[1]], 5]])})
