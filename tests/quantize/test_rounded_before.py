"""Codes found before the writing, and 8 bits beside 4: in GGUF files, resumed, refused, planned."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nemotrt import quantize
from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.gguf import folder as gguf_folder
from nemotrt.engines.checkpoint.gguf.file import read_gguf
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.linear_weight import LinearWeight, spread
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.calibration.compensate import compensate
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.quality.layers import choice
from nemotrt.quantize.quality.layers.divergence import Unit
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.recipes.selection import select
from nemotrt.quantize.writing.gguf.writer import quantize_to_gguf
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.quantized_bytes import folder_bytes, interrupt

INT4 = load_recipe("int4-wo")
MEASURING = (["--mixed"], ["--budget-gib", "1"], ["--compensate"])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_folder, "user_cache", lambda: tmp_path / "cache")


def some_codes(
    source: Path, folder: Path, seed: int, skip: tuple[str, ...] = ()
) -> dict[str, Path]:
    """Write codes and scales that no search would give, for each weight of int4-wo."""
    checkpoint, rng, found = open_checkpoint(source), np.random.default_rng(seed), {}
    for number, name in enumerate(select(checkpoint.config, INT4).weights):
        if name in skip:
            continue
        rows, columns = checkpoint[name].shape
        target = folder / str(number)
        target.mkdir(parents=True)
        np.save(target / "0.npy", rng.integers(-8, 8, (rows, columns)).astype(np.int8))
        scales = rng.integers(128, 256, (rows, columns // 32)) * 2.0**-12  # 8 bits, as bfloat16
        np.save(target / "1.npy", scales.astype(np.float32))
        found[name] = target
    return found


@pytest.mark.parametrize("model", ["tiny", "tiny-dense"])
def test_a_gguf_file_holds_the_codes_and_the_mix(model: str, tmp_path: Path) -> None:
    """Q4_0 is codes times scales; of a linear with 8 bits it is Q8_0, as int8-wo writes it."""
    source = TINY_MODELS[model]
    config = open_checkpoint(source).config
    int8 = next(n for n in select(config, INT4).weights if "out_proj" in n or "o_proj" in n)
    rounded = some_codes(source, tmp_path / "codes", 0, skip=(int8,))
    options = QuantizeOptions(int8=(int8,), rounded=rounded, to_gguf=True)
    for name, recipe, how in (
        ("m", INT4, options),
        ("eight", load_recipe("int8-wo"), QuantizeOptions(to_gguf=True)),
    ):
        quantize_to_gguf(source, tmp_path / f"{name}.gguf", recipe, how)
    found, eight = (
        open_checkpoint(checkpoint_folder(str(tmp_path / f"{name}.gguf")))
        for name in ("m", "eight")
    )
    for name, folder in rounded.items():
        codes, scales = (np.load(folder / f"{part}.npy") for part in (0, 1))
        np.testing.assert_array_equal(found.floats(name), codes * spread(scales, codes.shape[1]))
    np.testing.assert_array_equal(found.floats(int8), eight.floats(int8))
    kinds = [tensor.kind for tensor in read_gguf(tmp_path / "m.gguf").tensors.values()]
    assert kinds.count("Q4_0") == len(rounded) and kinds.count("Q8_0") == 3


def test_a_resumed_run_has_the_codes_of_its_own_rounding(checkpoint: Path, tmp_path: Path) -> None:
    """Even if rounding again gave others: no mix of the two is left."""
    options = [
        QuantizeOptions(
            compensate=True, rounded=some_codes(checkpoint, tmp_path / f"codes{seed}", seed)
        )
        for seed in (1, 2)
    ]
    interrupt(checkpoint, tmp_path / "out", INT4, options[0])
    quantize_checkpoint(checkpoint, tmp_path / "out", INT4, replace(options[1], resume=True))
    quantize_checkpoint(checkpoint, tmp_path / "whole", INT4, options[1])
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")
    name, folder = next(iter(options[1].rounded.items()))
    codes, scales = (np.load(folder / f"{part}.npy") for part in (0, 1))
    values = LinearWeight(open_checkpoint(tmp_path / "out"), name).floats()
    np.testing.assert_array_equal(values, codes * spread(scales, codes.shape[1]))


@pytest.mark.parametrize(
    ("leaf", "message"),
    [("mixer.in_proj", "in_proj.weight holds 1 NaN"), ("norm", "in_proj.weight overflow")],
)
def test_nan_is_named_before_codes_are_made(
    leaf: str, message: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Of a weight itself, and of what enters it."""

    def spoil(tensors: dict[str, Any]) -> None:
        weight = tensors[f"backbone.layers.0.{leaf}.weight"]
        weight.view(-1)[3] = 3e38 if leaf == "norm" else float("nan")

    source, folder = open_checkpoint(make_checkpoint(edit=spoil)), tmp_path / "codes"
    folder.mkdir()
    tokens = np.arange(64).reshape(2, 32)
    with pytest.raises(ArtefactError, match=message):
        compensate(source, ["backbone.layers.0.mixer.in_proj.weight"], 32, tokens, folder)
    assert not list(folder.rglob("*.npy"))


@pytest.mark.parametrize("more", MEASURING, ids=lambda words: words[0])
@pytest.mark.parametrize("recipe", ["int8-wo", "nvfp4", "fp8-dynamic"])
def test_what_is_for_int4_is_refused_elsewhere(
    recipe: str, more: list[str], tmp_path: Path
) -> None:
    """Before any work, in a dry run too."""
    command = ["quantize", "tiny", "--recipe", recipe, "--dry-run", "-o", str(tmp_path / "q")]
    result = CliRunner().invoke(main, [*command, *more])
    assert result.exit_code == 2
    assert f"{more[0]} is for recipes of 4 bits as int4-wo has them; {recipe}" in result.stderr


@pytest.mark.parametrize("more", MEASURING, ids=lambda words: words[0])
def test_a_gguf_file_of_other_groups_is_refused_before_the_work(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "measure", lambda *_: pytest.fail("was measured"))
    command = ["quantize", "tiny", "--recipe", "int4-wo", "--group-size", "64", *more]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "m.gguf")])
    assert result.exit_code == 2 and "Q4_0 has groups of 32 inputs" in result.stderr


@pytest.mark.parametrize("name", ["q", "m.gguf"])
def test_a_dry_run_shows_which_get_8_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as many bytes as the run then writes, within the budget."""

    def measure(_: Any, every: list[Unit], *__: Any) -> list[Unit]:
        return [replace(unit, divergence=1.0 / (place + 1)) for place, unit in enumerate(every)]

    monkeypatch.setattr(choice, "measure", measure)
    command = ["quantize", "tiny", "--recipe", "int4-wo", "--mixed", "-o", str(tmp_path / name)]
    told = CliRunner().invoke(main, [*command, "--dry-run"])
    lines = [line for line in told.stdout.splitlines() if line.endswith(", 8 bits")]
    assert 0 < len(lines) < told.stdout.count("quantize ")
    planned = json.loads(CliRunner().invoke(main, [*command, "--dry-run", "--json"]).stdout)
    assert [f"quantize {weight}, 8 bits" for weight in planned["int8"]] == sorted(lines)
    assert not (tmp_path / name).exists()
    done = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert done["target_bytes"] == planned["target_bytes"]
    budget = (done["target_bytes"] - 1) / 2**30
    smaller = [*command, "--budget-gib", f"{budget:.12f}", "--dry-run", "--json", "--force"]
    found = json.loads(CliRunner().invoke(main, smaller).stdout)
    assert len(found["int8"]) > 0 and found["target_bytes"] < done["target_bytes"]


def test_python_takes_what_the_command_takes(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint()
    (source / "tokenizer.json").unlink()
    for name, how, words in (
        ("groups", {"group_size": 64, "format": "modelopt"}, "--group-size 64 --format modelopt"),
        ("m.gguf", {"format": "gguf"}, "--format gguf"),
    ):
        ours = tmp_path / "python" / name
        theirs = tmp_path / "command" / name
        for path in (ours, theirs):
            path.parent.mkdir(exist_ok=True)
        model = TINY_MODELS["tiny-dense"] if name == "groups" else source
        quantize(model, ours, "int4-wo", **how)
        command = ["quantize", str(model), "--recipe", "int4-wo", *words.split()]
        assert CliRunner().invoke(main, [*command, "-o", str(theirs)]).exit_code == 0
        weights = [path / "model.safetensors" if path.is_dir() else path for path in (ours, theirs)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("recipe", "how", "message"),
    [
        ("int4-wo", {"group_size": 48}, "group_size 48: give one of 32, 64, 128"),
        ("int8-wo", {"group_size": 64}, "group_size is for int4-wo; int8-wo has no groups"),
        ("int4-wo", {"budget_gib": 0}, "budget_gib 0 is not above 0"),
        ("int4-wo", {"text": "a.txt"}, "text is for calibration and compensate"),
        ("int4-wo", {"format": "npz"}, "unknown format 'npz'"),
        ("nvfp4", {"mixed": True}, "--mixed is for recipes of 4 bits as int4-wo"),
        ("int8-wo", {"compensate": True}, "--compensate is for recipes of 4 bits"),
    ],
)
def test_arguments_without_effect_are_refused(
    recipe: str, how: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        quantize("tiny", tmp_path / "q", recipe, **how)
    assert not (tmp_path / "q").exists()
