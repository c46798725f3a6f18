"""Errors that later inputs make up for, on correlated inputs and on the trained model."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.codes.groups import round_groups
from nemotrt.engines.checkpoint.linear_weight import LinearWeight, spread
from nemotrt.engines.model.tensor_names import linear_names
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.quantize.calibration import compensate as module
from nemotrt.quantize.calibration.compensate import rounded
from nemotrt.quantize.calibration.drawn import draw_windows
from nemotrt.quantize.calibration.texts import (
    DEFAULT_TEXT,
    read_texts,
    spread_windows,
    token_windows,
)
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.quality.evaluate import evaluate

TINY = TINY_MODELS["tiny"]


def weight_of(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return codes * spread(scales, codes.shape[1])


def plain(weight: np.ndarray, counts: np.ndarray) -> np.ndarray:
    codes = np.empty(weight.shape, np.int8)
    scales = np.empty((len(weight), weight.shape[1] // 32), np.float32)
    round_groups(weight, counts, 32, codes, scales)
    return weight_of(codes, scales)


def test_correlated_inputs_have_less_error_of_the_output() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((600, 24)) @ rng.standard_normal((24, 128))
    inputs = (inputs + rng.standard_normal(inputs.shape)).astype(np.float32)
    weight = rng.standard_normal((40, 128)).astype(np.float32)
    moments = inputs.T @ inputs
    found = weight_of(*rounded(weight, [moments], 32))
    errors = [
        np.linalg.norm(inputs @ (other - weight).T)
        for other in (found, plain(weight, np.diag(moments).copy()))
    ]
    assert errors[0] < 0.6 * errors[1]


def test_inputs_without_correlation_are_rounded_as_ever() -> None:
    """There is nothing to make up with: the search's own codes, weighted by the inputs' size."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((8, 64)).astype(np.float32)
    sizes = rng.uniform(1, 9, 64).astype(np.float32)
    counts = sizes + np.float32(module.DAMPING) * sizes.mean()
    found = weight_of(*rounded(weight, [np.diag(sizes)], 32))
    np.testing.assert_array_equal(found, plain(weight, counts))


def test_spans_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spans are rounded as two matrices; an input that is always 0 harms nothing."""
    monkeypatch.setattr(module, "SPAN", 64)
    rng = np.random.default_rng(2)
    inputs = rng.standard_normal((300, 96)).astype(np.float32)
    inputs[:, 70] = 0
    weight = rng.standard_normal((8, 96)).astype(np.float32)
    moments = [inputs[:, part].T @ inputs[:, part] for part in (slice(0, 64), slice(64, 96))]
    whole = weight_of(*rounded(weight, moments, 32))
    first = weight_of(*rounded(weight[:, :64], moments[:1], 32))
    np.testing.assert_array_equal(whole[:, :64], first)
    assert np.isfinite(whole).all()


def test_each_sweep_lowers_the_error_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((600, 24)) @ rng.standard_normal((24, 128))
    inputs = (inputs + rng.standard_normal(inputs.shape)).astype(np.float32)
    weight = rng.standard_normal((40, 128)).astype(np.float32)
    moments, errors = [inputs.T @ inputs], []
    for sweeps in range(4):
        monkeypatch.setattr(module, "SWEEPS", sweeps)
        codes, scales = rounded(weight, moments, 32)
        assert codes.min() >= -8 and codes.max() <= 7 and scales.min() > 0
        np.testing.assert_array_equal(scales.view(np.uint32) & 0xFFFF, 0)  # bfloat16's
        errors.append(np.linalg.norm(inputs @ (weight_of(codes, scales) - weight).T))
    assert errors == sorted(errors, reverse=True) and errors[3] < 0.95 * errors[0]


def test_a_weight_makes_up_for_inputs_that_are_wrong() -> None:
    """Inputs that came out too small and mixed with others: the exact output is met better."""
    rng = np.random.default_rng(4)
    exact = rng.standard_normal((2000, 64)).astype(np.float32)
    mix = 0.9 * np.eye(64) + 0.05 * rng.standard_normal((64, 64))
    inputs = (exact @ mix).astype(np.float32)
    weight = rng.standard_normal((16, 64)).astype(np.float32)
    moments, missing = [inputs.T @ inputs], [(exact - inputs).T @ inputs]
    errors = [
        np.linalg.norm(inputs @ weight_of(*rounded(weight, moments, 32, more)).T - exact @ weight.T)
        for more in ((), missing)
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(CheckpointFormat))
def test_the_trained_model_diverges_less(tmp_path: Path, layout: CheckpointFormat) -> None:
    """On held-out English and Japanese, at the same bytes; both layouts hold the codes."""
    for name, more in {"plain": [], "made-up": ["--compensate"]}.items():
        command = ["quantize", "tiny", "--recipe", "int4-wo", "--format", layout, *more]
        result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        assert inspect_quantized(tmp_path / name, TINY).faults == ()
    sizes = {
        name: (tmp_path / name / "model.safetensors").stat().st_size
        for name in ("plain", "made-up")
    }
    assert sizes["plain"] == sizes["made-up"]
    texts = {
        name: spread_windows(
            token_windows(TINY, read_texts(TINY.parent / f"heldout/{name}.txt"), 256, 10**9), 12
        )
        for name in ("en", "ja")
    }
    found = [evaluate(TINY, tmp_path / name, texts).texts for name in ("plain", "made-up")]
    for one, other in zip(*found, strict=True):
        assert other.mean_kl_divergence < 0.85 * one.mean_kl_divergence


@pytest.mark.slow
def test_damage_to_what_was_compensated_is_named(tmp_path: Path) -> None:
    """Rows move less than 0.2 of their norm; another row's codes, or half a scale more, shows."""
    command = ["quantize", "tiny", "--recipe", "int4-wo", "--compensate", "-o", str(tmp_path / "q")]
    assert CliRunner().invoke(main, command).exit_code == 0
    found, exact = open_checkpoint(tmp_path / "q"), open_checkpoint(TINY)
    for name in linear_names(exact.config):
        weight, was = LinearWeight(found, name).floats(), exact.floats(name)
        moved = np.linalg.norm(weight - was, axis=1) / np.linalg.norm(was, axis=1)
        assert 0.05 < moved.max() < 0.2, name
    path, module = tmp_path / "q/model.safetensors", "backbone.layers.1.mixer.up_proj"
    tensors = load_file(path)
    for leaf, change in (
        ("weight_scale", lambda stored: stored[7] * 1.5),
        ("weight_packed", lambda stored: stored[8]),
    ):
        damaged = {name: tensor.clone() for name, tensor in tensors.items()}
        damaged[f"{module}.{leaf}"][7] = change(damaged[f"{module}.{leaf}"])
        save_file(damaged, path, metadata={"format": "pt"})
        (fault,) = inspect_quantized(tmp_path / "q", TINY).faults
        assert fault.startswith(f"{module}, channel 7: differs from the source")


def test_what_has_no_4_bits_is_refused(tmp_path: Path) -> None:
    command = ["quantize", "tiny", "--recipe", "int8-wo", "--compensate", "-o", str(tmp_path / "q")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "--compensate is for recipes of 4 bits" in result.stderr
    assert not (tmp_path / "q").exists()


def test_drawn_text_needs_what_reads_it(tmp_path: Path) -> None:
    command = ["quantize", "tiny", "--recipe", "int4-wo", "--drawn", "4", "-o", str(tmp_path / "q")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "--drawn is text for --compensate" in result.stderr


def test_a_model_draws_text_that_it_expects() -> None:
    """Its own tokens are likelier to it than the shipped text, and the same at every call."""
    checkpoint = open_checkpoint(TINY)
    text = token_windows(TINY, read_texts(DEFAULT_TEXT), 64, 10**9)
    drawn = draw_windows(checkpoint, text, 20)
    assert drawn.shape == (20, 64) and drawn.max() < checkpoint.config.vocab_size
    np.testing.assert_array_equal(drawn[:, :4], np.resize(text, (20, 64))[:, :4])
    np.testing.assert_array_equal(draw_windows(checkpoint, text, 20), drawn)
    found = evaluate(TINY, TINY, {"drawn": drawn, "text": text[:20]}).texts
    assert found[0].reference_perplexity < 0.7 * found[1].reference_perplexity
