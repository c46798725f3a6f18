"""Calibration, SmoothQuant and quality against transformers and figures one can check by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.model.tensor_names import blocks, linear_names, model_names
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import load_calibration, save_calibration
from nemotrt.quantize.calibration.forward import embed, final_logits, run_block
from nemotrt.quantize.calibration.observe import Observation
from nemotrt.quantize.calibration.texts import DEFAULT_TEXT, read_texts, token_windows
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.options import CalibrationOptions, QuantizeOptions
from nemotrt.quantize.quality.command import evaluate as evaluate_command
from nemotrt.quantize.quality.evaluate import evaluate
from nemotrt.quantize.quality.running.fake_quant import QuantizedEmitter
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.scales import smooth
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.own_recipes import OWN_RECIPES
from support.reference import from_folder

IDS = np.arange(4 * 24).reshape(4, 24) * 7 % 96
INT8_SQ, FP8 = load_recipe("int8-sq"), load_recipe("fp8")
TINY = TINY_MODELS["tiny"]
IN_PROJ = "backbone.layers.0.mixer.in_proj.weight"


def logits(folder: Path, ids: np.ndarray) -> np.ndarray:
    checkpoint = open_checkpoint(folder)
    hidden = embed(checkpoint, ids)
    for block in blocks(checkpoint.config):
        list(run_block(checkpoint, block, hidden, QuantizedEmitter))
    head = checkpoint.floats(model_names(checkpoint.config).lm_head)
    return np.stack([final_logits(checkpoint, row, head) for row in hidden])


def reference_logits(folder: Path, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        result = from_folder(folder)(torch.from_numpy(ids), use_cache=False).logits
    return result.float().numpy()


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="session")
def calibrated(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("calibration") / "c"
    save_calibration(calibrate(open_checkpoint(checkpoint), IDS), folder)
    return checkpoint, folder


@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
def test_the_block_pass_is_transformers_forward(
    make_checkpoint: Callable[..., Path], model_type: str
) -> None:
    folder = make_checkpoint(model_type)
    assert relative(logits(folder, IDS), reference_logits(folder, IDS)) < 2e-6


def test_amax_is_what_a_torch_hook_sees(calibrated: tuple[Path, Path]) -> None:
    source, folder = calibrated
    seen: dict[str, torch.Tensor] = {}
    model = from_folder(source)
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            key = name.replace("model.", "backbone.", 1) + ".weight"
            module.register_forward_pre_hook(
                lambda module, inputs, key=key: seen.update(
                    {key: inputs[0].abs().flatten(0, -2).amax(0)}
                )
            )
    with torch.no_grad():
        model(torch.from_numpy(IDS), use_cache=False)
    found = load_calibration(folder, source)
    weights = {name for name in found.observations if name.endswith(".weight")}
    assert weights == seen.keys()
    for name, amax in seen.items():
        np.testing.assert_allclose(found[name].channel_amax, amax.numpy(), rtol=2e-4, atol=1e-7)
        width = len(amax)
        assert found[name].histogram.sum() == IDS.size * width
    assert {name for name in found.observations if name.endswith("_scale")} == {
        "backbone.layers.4.mixer.k_proj.k_scale",
        "backbone.layers.4.mixer.v_proj.v_scale",
    }


def test_a_calibration_is_for_one_checkpoint(
    calibrated: tuple[Path, Path], make_checkpoint: Callable[..., Path]
) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["backbone.norm_f.weight"] += 1  # the same layout, trained on

    for other in (make_checkpoint("qwen3"), make_checkpoint(edit=edit)):
        with pytest.raises(ConfigError, match="another checkpoint"):
            load_calibration(calibrated[1], other)
    with pytest.raises(ArtefactError, match="is not a calibration"):
        load_calibration(calibrated[0], calibrated[0])


@pytest.mark.parametrize(
    ("leaf", "damage"),
    [
        ("channel_amax", lambda values: values.fill_(float("nan"))),
        ("channel_amax", lambda values: -values),
        ("channel_amax", lambda values: values[:7].clone()),
        ("channel_amax", lambda values: values.int()),
        ("channel_amax", lambda values: values * 2),  # not what the summary says
        ("histogram", lambda values: values[:7].clone()),
        ("histogram", lambda values: values.float()),
        ("histogram", lambda values: values - 1),
        ("histogram", lambda values: None),
    ],
)
def test_a_damaged_calibration_is_refused(
    calibrated: tuple[Path, Path],
    tmp_path: Path,
    leaf: str,
    damage: Callable[[torch.Tensor], torch.Tensor | None],
) -> None:
    source, folder = calibrated
    shutil.copytree(folder, tmp_path / "c")
    path, name = tmp_path / "c/calibration.safetensors", f"{IN_PROJ}.{leaf}"
    tensors = load_file(path)
    tensors[name] = damage(tensors[name])
    save_file({key: value for key, value in tensors.items() if value is not None}, path)
    with pytest.raises(ArtefactError, match=IN_PROJ):
        quantize_checkpoint(
            source, tmp_path / "out", FP8, QuantizeOptions(calibration=tmp_path / "c")
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("amax", [None, ["x"], {"x": "large"}])
def test_a_damaged_summary_is_refused(
    calibrated: tuple[Path, Path], tmp_path: Path, amax: object
) -> None:
    shutil.copytree(calibrated[1], tmp_path / "c")
    path = tmp_path / "c/calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"amax": amax}))
    with pytest.raises(ArtefactError, match="is not a calibration"):
        load_calibration(tmp_path / "c", calibrated[0])


def test_clips() -> None:
    """1000 values 0.001 .. 1.000, then one outlier of 100."""
    seen = Observation.empty(1)
    values = np.arange(1, 1001, dtype=np.float32)[:, None] / 1000
    seen.add(values, "x")
    assert seen.amax == seen.clip("amax", 0, 127) == 1.0
    assert 0.5 <= seen.clip("percentile", 50, 127) <= 0.5 + 0.5 / 16
    assert seen.clip("mse", 0, 127) == pytest.approx(1.0, abs=0.05)
    seen.add(np.full((1, 1), 100, np.float32), "x")
    assert seen.amax == 100.0
    assert seen.clip("percentile", 99.5, 127) < 1.1
    with pytest.raises(ConfigError, match="unknown calibration method 'mean'"):
        seen.clip("mean", 0, 127)
    with pytest.raises(ArtefactError, match="input of x is NaN or infinite"):
        seen.add(np.full((1, 1), np.nan, np.float32), "x")


@pytest.mark.parametrize("kind", ["amax", "percentile", "mse"])
def test_static_fp8_has_the_scales_that_the_calibration_says(
    calibrated: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    source, folder = calibrated
    how = CalibrationOptions(kind, 99.0)
    options = QuantizeOptions(kv_cache="fp8", calibration=folder, calibration_options=how)
    quantize_checkpoint(source, tmp_path / "out", FP8, options)
    found = load_calibration(folder, source)
    tensors = {}
    for path in (tmp_path / "out").glob("*.safetensors"):
        tensors |= load_file(path)
    module = "backbone.layers.0.mixer.in_proj"
    assert tensors[f"{module}.weight_scale"].shape == tensors[f"{module}.input_scale"].shape == ()
    clip = found[f"{module}.weight"].clip(kind, 99.0, 448.0)
    assert float(tensors[f"{module}.input_scale"]) == pytest.approx(clip / 448, rel=1e-6)
    key = "backbone.layers.4.mixer.k_proj.k_scale"
    assert float(tensors[key]) == pytest.approx(found[key].clip(kind, 99.0, 448.0) / 448, rel=1e-6)


def with_outliers(tensors: dict[str, torch.Tensor]) -> None:
    """A few channels 30 times the rest, read by small weights, as in large models."""
    for name, tensor in tensors.items():
        if name.endswith("_proj.weight") and not name.endswith(
            ("down_proj.weight", "o_proj.weight")
        ):
            tensor[:, ::11] /= 30.0
        if name.endswith("norm.weight"):
            tensor.fill_(1.0)
            tensor[::11] = 30.0


@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
def test_folded_and_unfolded_smoothing_agree_and_help(
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
) -> None:
    source = make_checkpoint(model_type, edit=with_outliers)
    save_calibration(calibrate(open_checkpoint(source), IDS), tmp_path / "c")
    expected = logits(source, IDS)
    found = {}
    for fold in (True, False):
        how = CalibrationOptions(fold=fold)
        options = QuantizeOptions(calibration=tmp_path / "c", calibration_options=how)
        quantize_checkpoint(source, tmp_path / f"{fold}", INT8_SQ, options)
        found[fold] = logits(tmp_path / f"{fold}", IDS)
    # A rounding that falls on a tie may go the other way where relu^2's factor is a square root.
    assert relative(found[True], found[False]) < 0.1 * relative(found[True], expected)
    keys = {key for path in (tmp_path / "True").glob("*.safetensors") for key in load_file(path)}
    assert not any("pre_quant_scale" in key for key in keys)
    ones = lambda columns, seen, alpha: np.ones_like(seen)  # noqa: E731
    monkeypatch.setattr(smooth, "_factors", ones)
    quantize_checkpoint(
        source, tmp_path / "rough", INT8_SQ, QuantizeOptions(calibration=tmp_path / "c")
    )
    rough = relative(logits(tmp_path / "rough", IDS), expected)
    assert relative(found[True], expected) < 0.7 * rough


def test_a_norm_without_room_for_the_factors_is_refused(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16 ends at 65504: 20 times 2^12 would be infinite."""

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["backbone.layers.0.norm.weight"][3] = 20.0

    source = make_checkpoint(dtype=torch.float16, edit=edit)
    save_calibration(calibrate(open_checkpoint(source), IDS), tmp_path / "c")
    least = lambda columns, seen, alpha: np.full_like(seen, 2.0**-12)  # noqa: E731
    monkeypatch.setattr(smooth, "_factors", least)
    options = QuantizeOptions(calibration=tmp_path / "c")
    with pytest.raises(ConfigError, match=r"layers.0.norm.weight is F16 .* --no-fold"):
        quantize_checkpoint(source, tmp_path / "out", INT8_SQ, options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", OWN_RECIPES)
@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
def test_transformers_reads_compressed_tensors_and_agrees(
    make_checkpoint: Callable[..., Path], tmp_path: Path, model_type: str, recipe: str
) -> None:
    """Its logits are ours, in both layouts: the same codes, and activations rounded alike."""
    source = make_checkpoint(model_type)
    save_calibration(calibrate(open_checkpoint(source), IDS), tmp_path / "c")
    ours = {}
    for layout in CheckpointFormat:
        options = QuantizeOptions(layout=layout, calibration=tmp_path / "c")
        quantize_checkpoint(source, tmp_path / layout, load_recipe(recipe), options)
        ours[layout] = logits(tmp_path / layout, IDS)
    np.testing.assert_array_equal(
        ours[CheckpointFormat.COMPRESSED_TENSORS], ours[CheckpointFormat.MODELOPT]
    )
    assert 1e-5 < relative(ours[CheckpointFormat.MODELOPT], logits(source, IDS)) < 1e-2
    model = from_folder(tmp_path / CheckpointFormat.COMPRESSED_TENSORS)
    linears = [module for module in model.modules() if hasattr(module, "quantization_scheme")]
    assert type(model.hf_quantizer).__name__ == "CompressedTensorsHfQuantizer" and linears
    with torch.no_grad():
        found = model(torch.from_numpy(IDS), use_cache=False).logits.float().numpy()
    # compressed-tensors divides a token's amax by 127.5, vLLM's kernel and we by 127.
    limit = 2e-3 if recipe == "int8-dynamic" else 2e-6
    assert relative(found, ours[CheckpointFormat.MODELOPT]) < limit


def with_strong_attention(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")):
            tensor *= 8


@pytest.mark.parametrize("layout", list(CheckpointFormat))
@pytest.mark.parametrize("kv_cache", ["fp8", "int8"])
def test_keys_and_values_are_rounded_as_the_scales_say(
    make_checkpoint: Callable[..., Path], tmp_path: Path, kv_cache: str, layout: CheckpointFormat
) -> None:
    """Against transformers, with hooks that round what k_proj and v_proj give (no rotary here)."""
    source = make_checkpoint(edit=with_strong_attention)
    save_calibration(calibrate(open_checkpoint(source), IDS), tmp_path / "c")
    options = QuantizeOptions(layout=layout, kv_cache=kv_cache, calibration=tmp_path / "c")
    quantize_checkpoint(source, tmp_path / "out", load_recipe("int8-wo"), options)
    checkpoint = open_checkpoint(tmp_path / "out")
    dense = {
        name: torch.from_numpy(np.array(LinearWeight(checkpoint, name).floats()))
        for name in linear_names(checkpoint.config)
    }
    model = from_folder(source)
    for name, module in model.named_modules():
        hub = name.replace("model.", "backbone.", 1)
        if f"{hub}.weight" in dense:
            module.weight.data = dense[f"{hub}.weight"]
        if hub.endswith(("k_proj", "v_proj")):
            scale = float(checkpoint.floats(f"{hub}.{hub[-6]}_scale"))
            module.register_forward_hook(lambda m, x, y, s=scale: rounded(y, s, kv_cache))
    with torch.no_grad():
        expected = model(torch.from_numpy(IDS), use_cache=False).logits.float().numpy()
    found = logits(tmp_path / "out", IDS)
    assert relative(found, expected) < 1e-3  # a tie may fall to the other side
    plain = QuantizeOptions()
    quantize_checkpoint(source, tmp_path / "plain", load_recipe("int8-wo"), plain)
    assert relative(logits(tmp_path / "plain", IDS), found) > 5e-3


def rounded(values: torch.Tensor, scale: float, kind: str) -> torch.Tensor:
    if kind == "int8":
        return (values / scale).round().clamp(-128, 127) * scale
    return (values / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def test_a_static_recipe_asks_for_a_calibration(checkpoint: Path, tmp_path: Path) -> None:
    for arguments in (["--recipe", "fp8"], ["--recipe", "int8-wo", "--kv-cache", "int8"]):
        command = ["quantize", str(checkpoint), "-o", str(tmp_path / "out"), *arguments]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2 and "--calibration DIR" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_texts(tmp_path: Path) -> None:
    assert len(read_texts(DEFAULT_TEXT)) > 30
    plain = tmp_path / "a.txt"
    plain.write_text("one\ntwo")
    assert read_texts(plain) == ["one\ntwo"]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "one"}\n\n{"txt": "two"}\n')
    with pytest.raises(ConfigError, match=r"a\.jsonl, line 3"):
        read_texts(lines)


def heldout(num_sequences: int) -> dict[str, np.ndarray]:
    return {
        language: token_windows(
            TINY, read_texts(TINY.parent / f"heldout/{language}.txt"), 256, num_sequences
        )
        for language in ("en", "ja")
    }


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(CheckpointFormat))
@pytest.mark.parametrize("recipe", OWN_RECIPES)
def test_the_trained_models_perplexity_stays_within_a_percent(
    tmp_path: Path, recipe: str, layout: str
) -> None:
    """In both languages, activations in the format's arithmetic too."""
    command = ["quantize", "tiny", "--recipe", recipe, "--format", layout]
    command += ["--calibration", str(tmp_path / "c"), "--sequence-tokens", "128"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    quality = evaluate(TINY, tmp_path / "out", heldout(20))
    print(json.dumps([text.perplexity / text.reference_perplexity for text in quality.texts]))
    assert {text.name for text in quality.texts} == {"en", "ja"}
    for text in quality.texts:
        assert text.num_tokens == 20 * 255
        assert abs(text.perplexity / text.reference_perplexity - 1) < 0.01
        assert 0 <= text.mean_kl_divergence < 0.01 and text.top1_agreement > 0.9
    assert len(quality.layers) == len(open_checkpoint(TINY).config.layers)


@pytest.mark.slow
def test_folded_and_unfolded_smoothing_agree_on_the_trained_model(tmp_path: Path) -> None:
    texts = []
    for fold in ([], ["--no-fold"]):
        target = tmp_path / f"out{len(fold)}"
        command = ["quantize", "tiny", "--recipe", "int8-sq", "-o", str(target), *fold]
        command += ["--calibration", str(tmp_path / "c"), "--sequence-tokens", "128"]
        assert CliRunner().invoke(main, command).exit_code == 0
        texts.append(evaluate(TINY, target, heldout(8)).texts)
    for folded, unfolded in zip(*texts, strict=True):
        assert folded.perplexity == pytest.approx(unfolded.perplexity, rel=5e-4)
        assert folded.top1_agreement == pytest.approx(unfolded.top1_agreement, abs=0.01)


def test_a_model_against_itself_is_perfect(checkpoint: Path) -> None:
    (text,) = evaluate(checkpoint, checkpoint, {"x": IDS}).texts
    assert text.perplexity == text.reference_perplexity
    assert text.mean_kl_divergence == 0 and text.top1_agreement == 1
    assert text.num_tokens == 4 * 23
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(reference_logits(checkpoint, IDS)[:, :-1]).reshape(-1, 96),
        torch.from_numpy(IDS[:, 1:]).reshape(-1),
    )
    assert text.perplexity == pytest.approx(float(expected.exp()), rel=1e-5)


def test_evaluate_command(checkpoint: Path, tmp_path: Path) -> None:
    """The random model has no real tokenizer, so the shipped tiny one is compared with itself."""
    text = tmp_path / "short.txt"
    text.write_text("A short text, which is long enough for one sequence of sixteen tokens. " * 4)
    arguments = ["tiny", "--against", "tiny", "--text", str(text), "--sequence-tokens", "16"]
    page = tmp_path / "page.html"
    result = CliRunner().invoke(evaluate_command, [*arguments, "--page", str(page), "--json"])
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert value["schema_version"] == 1 and value["texts"][0]["name"] == "short"
    assert value["texts"][0]["mean_kl_divergence"] == 0
    html = page.read_text()
    assert "<svg" in html and "http" not in html
    printed = CliRunner().invoke(evaluate_command, arguments).stdout
    assert "short" in printed and "worst layers" in printed
    (tmp_path / "more").mkdir()
    twin = tmp_path / "more/short.txt"
    twin.write_text(text.read_text())
    both = CliRunner().invoke(evaluate_command, [*arguments, "--text", str(twin)]).stdout
    assert f"{text} " in both and f"{twin} " in both
    nowhere = [*arguments, "--page", str(tmp_path / "none/page.html")]
    assert CliRunner().invoke(main, ["evaluate", *nowhere]).exit_code == 2
    other = CliRunner().invoke(evaluate_command, ["tiny-dense", "--against", "tiny"])
    assert other.exit_code == 2 and "another model" in other.stderr
