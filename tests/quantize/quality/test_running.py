"""Blocks on the native kernels against ONNX Runtime's, and texts taken whole."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.tensor_names import blocks, model_names
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.quantize.calibration.forward import embed, final_logits, run_block
from nemotrt.quantize.calibration.texts import spread_windows
from nemotrt.quantize.quality.evaluate import evaluate, num_steps
from nemotrt.quantize.quality.running import opened
from nemotrt.quantize.quality.running.block_engine import BlockEngine
from nemotrt.quantize.quality.running.fake_quant import QuantizedEmitter
from nemotrt.quantize.quality.running.opened import opened_block, opened_head
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint

TOKENS = np.random.default_rng(0).integers(20, 4000, (1, 300))


@pytest.mark.parametrize("model", ["tiny", "tiny-dense"])
@pytest.mark.parametrize("recipe", [None, "int4-wo", "int8-wo"])
def test_each_block_is_onnx_runtimes(tmp_path: Path, model: str, recipe: str | None) -> None:
    """Also in several steps, as 300 tokens take; int8's inputs are rounded to 16 bits."""
    folder = TINY_MODELS[model]
    if recipe:
        quantize_checkpoint(folder, tmp_path / "q", load_recipe(recipe))
        folder = tmp_path / "q"
    checkpoint = open_checkpoint(folder)
    hidden = embed(checkpoint, TOKENS)
    for block in list(blocks(checkpoint.config))[:4]:
        before = hidden.copy()
        with opened_block(checkpoint, block, 300) as run:
            found = run(before[0])
        for _ in run_block(checkpoint, block, hidden, QuantizedEmitter):
            pass
        added = np.linalg.norm(hidden[0] - before[0])
        limit = 1e-3 if recipe == "int8-wo" else 1e-5  # of the output; int8 itself is at 7e-3
        assert np.linalg.norm(found - hidden[0]) < limit * added
    with opened_head(checkpoint, 300) as head:
        found = head(hidden[0])
    expected = final_logits(
        checkpoint, hidden[0], checkpoint.floats(model_names(checkpoint.config).lm_head)
    )
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_figures_without_the_compiled_step_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TINY_MODELS["tiny"]
    quantize_checkpoint(source, tmp_path / "q", load_recipe("int4-wo"))
    tokens = {"x": TOKENS.reshape(10, 30)}
    steps: list[int] = []
    native = evaluate(source, tmp_path / "q", tokens, steps.append)
    assert sum(steps) == num_steps(source, tmp_path / "q", tokens)
    monkeypatch.setattr(opened, "_has_step", lambda: False)
    portable = evaluate(source, tmp_path / "q", tokens)
    (one,), (other,) = native.texts, portable.texts
    assert one.mean_kl_divergence == pytest.approx(other.mean_kl_divergence, rel=1e-3)
    assert one.perplexity == pytest.approx(other.perplexity, rel=1e-5)
    for first, second in zip(native.layers, portable.layers, strict=True):
        assert (first.layer, first.kind) == (second.layer, second.kind)
        assert first.relative_error == pytest.approx(second.relative_error, rel=1e-3)


def test_a_block_whose_stream_came_to_the_disk_goes_on(tmp_path: Path) -> None:
    """Its own writes after that move the file's time; they are none of another process."""
    checkpoint = open_checkpoint(TINY_MODELS["tiny"])
    hidden = embed(checkpoint, TOKENS)[0]
    with BlockEngine(checkpoint, next(blocks(checkpoint.config)), tmp_path, 300) as block:
        before = block.added(hidden)
        block._room.flush()
        time.sleep(0.05)  # coarse clocks of files
        np.testing.assert_array_equal(block.added(hidden), before)


def test_windows_are_spread_over_the_text() -> None:
    rows = np.arange(10)[:, None]
    assert spread_windows(rows, 3)[:, 0].tolist() == [0, 3, 6]
    assert spread_windows(rows, None) is rows and spread_windows(rows, 11) is rows


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text("A text that is long enough for a dozen windows of sixteen tokens. " * 24)
    command = ["evaluate", "tiny", "--against", "tiny", "--text", str(text)]
    command += ["--sequence-tokens", "16"]
    whole = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)["texts"][0]
    assert whole["num_windows"] > 12 and whole["left_out_tokens"] < 16
    assert whole["standard_errors"]["change"] == 0
    part = CliRunner().invoke(main, [*command, "--sequences", "3"])
    assert part.exit_code == 0, part.output
    left = whole["left_out_tokens"] + 16 * (whole["num_windows"] - 3)
    assert f"{left} tokens of the text were left out" in part.stdout
    assert "3 windows are too few for a standard error" in part.stdout
    timed = CliRunner().invoke(main, [*command, "--minutes", "30", "--json"])
    assert json.loads(timed.stdout)["texts"][0]["num_windows"] == whole["num_windows"]
