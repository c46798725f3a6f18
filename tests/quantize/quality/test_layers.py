"""8 bits beside 4: what is measured, what is chosen, what is written, and who reads it back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from safetensors.torch import load_file

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.texts import read_texts, spread_windows, token_windows
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.quality.evaluate import evaluate
from nemotrt.quantize.quality.layers.choice import (
    LEFT_IN_8_BITS,
    choose_int8,
    extra_bytes,
    within,
)
from nemotrt.quantize.quality.layers.divergence import Unit, measure, units, with_int4
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.recipes.selection import select
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.reference import from_folder

TINY = TINY_MODELS["tiny"]
INT4 = load_recipe("int4-wo")
SOME = tuple(f"backbone.layers.{name}.weight" for name in ("0.mixer.in_proj", "1.mixer.down_proj"))


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def heldout(num_windows: int) -> dict[str, np.ndarray]:
    return {
        name: spread_windows(
            token_windows(TINY, read_texts(TINY.parent / f"heldout/{name}.txt"), 256, 10**9),
            num_windows,
        )
        for name in ("en", "ja")
    }


@pytest.mark.parametrize("model", ["tiny", "tiny-dense"])
def test_units_are_all_weights_once_and_fused_ones_together(model: str) -> None:
    config = open_checkpoint(TINY_MODELS[model]).config
    weights = select(config, INT4).weights
    found = units(config, weights)
    names = [name for unit in found for name in unit.weights]
    assert sorted(names) == sorted(weights) and len(names) == len(set(names))
    for unit in found:
        leaves = {name.split(".")[-2] for name in unit.weights}
        assert leaves in ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}) or (
            len(leaves) == 1 and not leaves & {"q_proj", "gate_proj"}
        )


def test_what_wins_most_for_its_bytes_is_taken_first() -> None:
    every = [Unit((name,), value) for name, value in (("a", 1.0), ("b", 3.0), ("c", 2.0))]
    sizes = {("a",): 1, ("b",): 6, ("c",): 3}
    assert [unit.weights for unit in within(every, sizes, 5)] == [("a",), ("c",)]
    assert [unit.weights for unit in within(every, sizes, 9)] == [("a",), ("c",)]
    assert len(within(every, sizes, 10)) == 3 and within(every, sizes, 0) == []


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[CheckpointFormat, Path]:
    root = tmp_path_factory.mktemp("mixed")
    for layout in CheckpointFormat:
        options = QuantizeOptions(layout, int8=SOME)
        quantize_checkpoint(TINY, root / layout, INT4, options)
    return {layout: root / layout for layout in CheckpointFormat}


def test_both_layouts_hold_the_mix(written: dict[CheckpointFormat, Path]) -> None:
    """By compressed-tensors' own unpacking; each is whole, and near its source."""
    first, second = (open_checkpoint(folder) for folder in written.values())
    stored = load_file(written[CheckpointFormat.COMPRESSED_TENSORS] / "model.safetensors")
    for name in select(first.config, INT4).weights:
        one, other = LinearWeight(first, name), LinearWeight(second, name)
        assert one.has_int4 == other.has_int4 == (name not in SOME)
        assert one.has_codes == (name in SOME)
        np.testing.assert_array_equal(one.floats(), other.floats())
        module, bits = name.removesuffix(".weight"), 8 if name in SOME else 4
        shape = torch.Size(stored[f"{module}.weight_shape"].tolist())
        codes = unpack_from_int32(stored[f"{module}.weight_packed"], bits, shape).float()
        scales = stored[f"{module}.weight_scale"].float()
        expected = codes * scales.repeat_interleave(shape[1] // scales.shape[1], 1)
        np.testing.assert_array_equal(one.floats(), expected.numpy())
    for folder in written.values():
        assert inspect_quantized(folder, TINY).faults == ()
        assert open_checkpoint(folder).quant.precision is Precision.INT4_WO


@pytest.mark.slow
def test_transformers_reads_the_mix(written: dict[CheckpointFormat, Path]) -> None:
    """Through compressed-tensors, by its config groups; its logits are those of our floats."""
    folder = written[CheckpointFormat.COMPRESSED_TENSORS]
    model, plain = from_folder(folder), from_folder(TINY)
    checkpoint = open_checkpoint(folder)
    for name, module in plain.named_modules():
        hub = f"{name.replace('model.', 'backbone.', 1)}.weight"
        if hub in checkpoint and isinstance(module, torch.nn.Linear) and "lm_head" not in hub:
            module.weight.data = torch.from_numpy(np.array(LinearWeight(checkpoint, hub).floats()))
    bits = [
        module.quantization_scheme.weights.num_bits
        for module in model.modules()
        if hasattr(module, "quantization_scheme")
    ]
    assert bits.count(8) == len(SOME) and bits.count(4) == len(bits) - len(SOME) > 10
    ids = torch.arange(40)[None] * 7 % 4000
    with torch.no_grad():
        found, expected = (m(ids, use_cache=False).logits for m in (model, plain))
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.slow
def test_an_engine_runs_the_mix(written: dict[CheckpointFormat, Path], tmp_path: Path) -> None:
    """Nearer to the source than int4 alone; int8 linears keep their codes."""
    ids = [int(token) for token in np.arange(60) * 13 % 4000]
    quantize_checkpoint(TINY, tmp_path / "q4", INT4)
    logits = {}
    for name, source in {
        "mixed": written[CheckpointFormat.MODELOPT],
        "int4": tmp_path / "q4",
    }.items():
        build_engine(source, tmp_path / name, BuildSpec("native", limits=Limits(1, 64, 64)))
        engine = open_engine(tmp_path / name).engine
        logits[name] = engine.step([Feed(engine.allocate(), ids, len(ids))])
        engine.close()
    with torch.no_grad():
        exact = from_folder(TINY)(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    errors = {name: np.linalg.norm(found - exact) for name, found in logits.items()}
    assert errors["mixed"] < 0.97 * errors["int4"]


def test_plan_counts_the_mix(written: dict[CheckpointFormat, Path], tmp_path: Path) -> None:
    from nemotrt.profiles.planning.sources.model_source import read_source

    quantize_checkpoint(TINY, tmp_path / "q4", INT4)
    sizes = {}
    for name, folder in {
        "q4": tmp_path / "q4",
        "mixed": written[CheckpointFormat.MODELOPT],
    }.items():
        raw = json.loads((folder / "config.json").read_text())
        checkpoint = open_checkpoint(folder)
        by_config, by_files = (
            read_source(raw, checkpoint.config, folder / "config.json", has_weights=known).weights
            for known in (False, True)
        )
        assert by_config is not None and by_files is not None
        told, stored = (
            sum(item.num_bytes for item in weights.linears.values())
            for weights in (by_config, by_files)
        )
        assert told == pytest.approx(stored, rel=0.03)
        sizes[name] = stored
    extra = sum(extra_bytes(TINY, Unit((name,)), 32) for name in SOME)
    assert sizes["mixed"] - sizes["q4"] == pytest.approx(extra, rel=0.02)


@pytest.mark.slow
def test_a_budget_is_kept_and_told(tmp_path: Path) -> None:
    quantize_checkpoint(TINY, tmp_path / "q4", INT4)
    least = weight_bytes(tmp_path / "q4")
    budget = (least + 150_000) / 2**30
    command = ["quantize", "tiny", "--recipe", "int4-wo", "--budget-gib", f"{budget:.9f}"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "q")])
    assert result.exit_code == 0, result.output
    assert least < weight_bytes(tmp_path / "q") <= budget * 2**30
    assert " 8 bits  backbone.layers." in result.stderr and " 4 bits  backbone" in result.stderr
    assert json.loads((tmp_path / "q/nemotrt_quantize.json").read_text())["int8"]
    small = CliRunner().invoke(main, [*command[:-1], "0.001", "-o", str(tmp_path / "s")])
    assert small.exit_code == 2 and "4 bits alone take" in small.stderr
    other = ["quantize", "tiny", "--recipe", "int8-wo", "--mixed", "-o", str(tmp_path / "o")]
    assert "recipes of 4 bits" in CliRunner().invoke(main, other).stderr


def test_fused_linears_have_the_same_bits() -> None:
    config = open_checkpoint(TINY_MODELS["tiny-dense"]).config
    with pytest.raises(ConfigError, match="give them the same bits"):
        select(config, INT4, int8=["model.layers.0.self_attn.q_proj.weight"])


@pytest.mark.slow
def test_a_units_divergence_is_transformers() -> None:
    """Of its model with this unit alone in 4 bits."""
    checkpoint = open_checkpoint(TINY)
    tokens = token_windows(TINY, read_texts(TINY.parent / "heldout/en.txt"), 64, 2)
    every = units(checkpoint.config, select(checkpoint.config, INT4).weights)
    found = measure(checkpoint, every, 32, tokens)
    assert [unit.weights for unit in found] == [unit.weights for unit in every]
    for unit in (found[1], found[4], found[-1]):
        first, second = (torch_log_probs(tokens, names) for names in ((), unit.weights))
        terms = (first.exp() * (first - second)).sum(-1)[:, :-1]
        assert unit.divergence == pytest.approx(float(terms.mean()), rel=0.02)


def torch_log_probs(tokens: np.ndarray, in_4_bits: tuple[str, ...]) -> torch.Tensor:
    model, changed = from_folder(TINY), with_int4(open_checkpoint(TINY), in_4_bits, 32)
    modules = dict(model.named_modules())
    for name in in_4_bits:
        module = modules[name.removesuffix(".weight").replace("backbone.", "model.", 1)]
        module.weight.data = torch.from_numpy(changed.floats(name))
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens), use_cache=False).logits
    return torch.log_softmax(logits.double(), -1)


@pytest.mark.slow
def test_the_chosen_mix_beats_others_of_its_bytes(tmp_path: Path) -> None:
    """On held-out English and Japanese: random choices, and the first layers, of its bytes."""
    options, _ = choose_int8(TINY, tmp_path / "q", INT4, QuantizeOptions())
    checkpoint, texts = open_checkpoint(TINY), heldout(24)
    every = units(checkpoint.config, select(checkpoint.config, INT4).weights)
    sizes = {unit.weights: extra_bytes(TINY, unit, 32) for unit in every}
    room = sum(sizes[unit.weights] for unit in every if set(unit.weights) <= set(options.int8))

    def divergence(name: str, weights: tuple[str, ...]) -> np.ndarray:
        quantize_checkpoint(TINY, tmp_path / name, INT4, replace(QuantizeOptions(), int8=weights))
        assert weight_bytes(tmp_path / name) <= weight_bytes(tmp_path / "chosen") + 2000
        found = evaluate(TINY, tmp_path / name, texts).texts
        return np.array([text.mean_kl_divergence for text in found])

    chosen = divergence("chosen", options.int8)
    rng, others = np.random.default_rng(0), {}
    for number in range(4):
        order = [every[place] for place in rng.permutation(len(every))]
        others[f"random{number}"] = _filled(order, sizes, room)
    others["first"] = _filled(every, sizes, room)
    all_int4 = divergence("int4", ())
    for name, weights in others.items():
        found = divergence(name, weights)
        print(name, found, chosen, all_int4)
        assert (chosen < 0.95 * found).all(), name
    assert (chosen < 0.8 * all_int4).all()


def _filled(order: list[Unit], sizes: dict[tuple[str, ...], int], room: int) -> tuple[str, ...]:
    """Return the weights of units in the given order, as far as they fit."""
    found: list[str] = []
    for unit in order:
        if sizes[unit.weights] <= room:
            found += unit.weights
            room -= sizes[unit.weights]
    return tuple(found)


@pytest.mark.slow
def test_what_8_bits_leave_of_the_divergence(tmp_path: Path) -> None:
    """The choice takes it for a constant share."""
    texts = heldout(8)
    found = {}
    for recipe in ("int8-wo", "int4-wo"):
        quantize_checkpoint(TINY, tmp_path / recipe, load_recipe(recipe))
        found[recipe] = evaluate(TINY, tmp_path / recipe, texts).texts
    for eight, four in zip(found["int8-wo"], found["int4-wo"], strict=True):
        assert eight.mean_kl_divergence < LEFT_IN_8_BITS * four.mean_kl_divergence
