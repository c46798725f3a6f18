"""Blocks of experts: what a config may say of them, what they cost, and who runs them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.graph.cost import Kind, totals
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.model_config import MoeConfig
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.linears import chosen_share
from nemotrt.profiles.planning.time.operators import Operator, decode_call, operators
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.contracts.loaders import BUILD, loader_verdicts
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.quality.evaluate import evaluate
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.recipes.selection import select
from nemotrt.quantize.writing.writer import QuantizeOptions, quantize_checkpoint
from support import reference
from support.members import MEMBERS

RAW = MEMBERS["nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"][0]
BF16 = Formats(Precision.BF16, NumberFormat.BF16, NumberFormat.FP32)
LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)


def test_the_30b_is_read_whole() -> None:
    config = parse_model_config(RAW)
    assert config.moe == MoeConfig(128, 6, 1856, 3712, scaling_factor=2.5)
    assert config.pattern == RAW["hybrid_override_pattern"]
    assert [config.pattern.count(letter) for letter in "ME*-"] == [23, 23, 6, 0]


def test_words_and_letters_are_the_same_layers() -> None:
    words = {"M": "mamba", "E": "moe", "*": "attention"}
    told = {key: value for key, value in RAW.items() if key != "hybrid_override_pattern"}
    told["layers_block_type"] = [words[letter] for letter in RAW["hybrid_override_pattern"]]
    told["num_local_experts"] = told.pop("n_routed_experts")
    assert parse_model_config(told) == parse_model_config(RAW)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"n_routed_experts": None}, "n_routed_experts is missing"),
        ({"num_experts_per_tok": 129}, r"num_experts_per_tok \(129\) exceeds 128 candidates"),
        ({"n_group": 3}, r"n_group \(3\) must divide 128 experts"),
        ({"n_group": 128, "topk_group": 8}, r"n_group \(128\) leaves groups of one"),
        ({"n_group": 2, "topk_group": 3}, r"topk_group \(3\) exceeds n_group \(2\)"),
        ({"n_group": 32, "num_experts_per_tok": 6}, r"\(6\) exceeds 4 candidates"),
        ({"n_shared_experts": 2}, "n_shared_experts must be 1: 2 is not supported"),
        ({"moe_latent_size": 0}, "moe_latent_size must be a positive integer, got 0"),
        ({"norm_topk_prob": 1}, "norm_topk_prob must be true or false, got 1"),
        ({"routed_scaling_factor": -1}, "routed_scaling_factor must be positive"),
    ],
)
def test_what_makes_no_choice_is_refused(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse_model_config(RAW | change)


def test_a_token_reads_its_own_experts_alone() -> None:
    """By hand: 6 of 128 experts of two matrices of 1856 x 2688, in 23 layers."""
    config = parse_model_config(RAW)
    found = totals(config)[Kind.EXPERTS]
    assert found.products == 23 * 6 * 2 * 1856 * 2688
    assert found.weights == 23 * 128 * 2 * 1856 * 2688
    shapes = expected_shapes(config)
    routed = [n for n in linear_names(config) if ".experts." in n]
    assert len(routed) == 23 * 128 * 2 and found.weights == sum(
        math.prod(shapes[n]) for n in routed
    )


def operator(name: str, num_tokens: int) -> Operator:
    every = operators(parse_model_config(RAW), BF16, decode_call(num_tokens, 10))
    return next(item for item in every if item.name == name)


def test_more_tokens_read_more_experts_until_all_are_read() -> None:
    assert chosen_share(128, 6, 1) == pytest.approx(6 / 128)
    assert chosen_share(4, 4, 1) == 1
    one, many, more = (operator("experts", count) for count in (1, 10_000, 20_000))
    weights = 2 * totals(parse_model_config(RAW))[Kind.EXPERTS].weights
    assert one.num_bytes == pytest.approx(weights * 6 / 128, rel=1e-3)
    assert more.num_bytes - 2 * (more.num_bytes - many.num_bytes) == pytest.approx(weights)
    assert more.num_flops == 20_000 * one.num_flops
    assert operator("router", 1).num_bytes == pytest.approx(23 * 128 * 2688 * 4, rel=0.01)


@pytest.fixture(scope="module")
def model() -> Any:
    return reference.nemotron_h("ME*E", seed=1, moe_latent_size=24, n_group=2, topk_group=1)


@pytest.fixture(scope="module")
def source(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = reference.save(model.bfloat16(), tmp_path_factory.mktemp("m") / "c")
    model.float()
    return folder


TOKENS = np.random.default_rng(0).integers(0, 96, (3, 24)).astype(np.int64)


@pytest.fixture(scope="module")
def calibration(source: Path) -> Path:
    folder = source.parent / "calibration"
    found = calibrate(open_checkpoint(source), TOKENS)
    experts = "backbone.layers.1.mixer.experts"
    assert found[f"{experts}.0.up_proj.weight"] is found[f"{experts}.5.up_proj.weight"]
    assert int(found[f"{experts}.0.up_proj.weight"].histogram.sum()) == TOKENS.size * 2 * 24
    save_calibration(found, folder)
    return folder


@pytest.mark.parametrize(
    ("recipe", "layout"),
    [
        ("int8-wo", CheckpointFormat.MODELOPT),
        ("int8-wo", CheckpointFormat.COMPRESSED_TENSORS),
        ("fp8", CheckpointFormat.MODELOPT),
        ("fp8-dynamic", CheckpointFormat.COMPRESSED_TENSORS),
    ],
)
def test_experts_are_quantized_each_with_its_own_scales(
    recipe: str, layout: CheckpointFormat, source: Path, calibration: Path, tmp_path: Path
) -> None:
    target = tmp_path / "q"
    options = QuantizeOptions(calibration=calibration, layout=layout)
    quantize_checkpoint(source, target, load_recipe(recipe), options)
    found = inspect_quantized(target, source)
    assert not found.faults
    kept = 4 * (recipe != "int8-wo")  # attention
    assert found.num_quantized == 2 + 2 * (2 * 6 + 2 + 2) + 4 - kept
    quality = evaluate(source, target, {"text": TOKENS})
    assert quality.texts[0].mean_kl_divergence < 0.05
    assert {error.name for error in quality.linears} >= {
        f"backbone.layers.1.mixer.experts.{k}.down_proj" for k in range(6)
    }


def test_a_quantized_checkpoint_runs_as_its_codes_say(source: Path, tmp_path: Path) -> None:
    """The native engine on the codes is ONNX Runtime on what they decode to."""
    quantize_checkpoint(source, tmp_path / "q", load_recipe("int8-wo"))
    rows = []
    for backend, precision in (("native", None), ("onnxruntime", Precision.FP32)):
        spec = BuildSpec(backend, precision=precision, limits=LIMITS)
        build_engine(tmp_path / "q", tmp_path / backend, spec)
        engine = registry.find_cpu(backend).load(tmp_path / backend, LIMITS, 2)
        rows.append(engine.step([Feed(engine.allocate(), TOKENS[0].tolist()[:16])])[0].copy())
        engine.close()
    np.testing.assert_allclose(rows[0], rows[1], atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("backend", "precision", "share"),
    [
        ("native", Precision.INT8_WO, 0.1),
        ("onnxruntime", Precision.INT8_WO, 0.1),
        ("native", Precision.INT4_WO, 0.3),
    ],
)
def test_engines_in_codes_are_close(
    backend: str, precision: Precision, share: float, tmp_path: Path
) -> None:
    """Also where an expert gets no row: 3 of 8 are chosen for the one token of a step."""
    model = reference.nemotron_h(
        "E*E", n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=32
    )
    spec = BuildSpec(backend, precision=precision, limits=LIMITS)
    build_engine(reference.save(model, tmp_path / "c"), tmp_path / "e", spec)
    engine = registry.find_cpu(backend).load(tmp_path / "e", LIMITS, 1)
    slot, tokens = engine.allocate(), TOKENS[0].tolist()[:12]
    found = [engine.step([Feed(slot, [token])])[0].copy() for token in tokens]
    engine.close()
    expected = reference.logits(model, tokens)
    assert np.sqrt(np.mean((np.array(found) - expected) ** 2)) < share * expected.std()


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8_WO, Precision.INT4_WO])
def test_company_pieces_and_threads_change_no_bit(
    precision: Precision, source: Path, tmp_path: Path
) -> None:
    """More seeds are drawn in the slow tests of the native engine."""
    build_engine(source, tmp_path / "e", BuildSpec("native", precision=precision, limits=LIMITS))
    rows = TOKENS[:, :20].tolist()
    found = []
    for threads, step in ((1, 1), (2, 7), (3, 16)):
        engine = NativeEngine(tmp_path / "e", LIMITS, threads)
        together = [engine.allocate() for _ in rows]
        for start in range(0, 20, step):
            feeds = [
                Feed(s, row[start : start + step]) for s, row in zip(together, rows, strict=True)
            ]
            last = engine.step(feeds)
        alone = engine.allocate()
        for token in rows[0]:
            single = engine.step([Feed(alone, [token])])
        found.append(np.concatenate([last, single]))
        engine.close()
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[0][0], found[0][-1])


def test_the_router_is_never_quantized(source: Path) -> None:
    chosen = select(open_checkpoint(source).config, load_recipe("int8-wo"))
    assert not any(name.endswith("gate.weight") for name in chosen.weights)
    assert "backbone.layers.1.mixer.gate" in chosen.exclude


def test_static_int8_inputs_are_refused_by_name(source: Path) -> None:
    with pytest.raises(
        ConfigError, match="int8-sq says neither quantize nor keep for nemotron_h moe"
    ):
        select(open_checkpoint(source).config, load_recipe("int8-sq"))


@pytest.mark.parametrize("name", registry.names())
def test_a_backend_without_experts_says_which_have_them(name: str, source: Path) -> None:
    backend = registry.find(name)
    if backend.has_experts:
        return
    spec = BuildSpec(name, gpu="a10g", precision=Precision.BF16, limits=LIMITS)
    message = f"backend {name} has no expert layers.*native, tensorrt-llm"
    with pytest.raises(ConfigError, match=message):
        build_engine(source, source.parent / "never", spec)


def test_tensorrt_llm_is_given_the_checkpoint_as_it_is(source: Path, tmp_path: Path) -> None:
    spec = BuildSpec("tensorrt-llm", gpu="h100", precision=Precision.BF16, limits=LIMITS)
    build_engine(source, tmp_path / "bundle", spec)
    manifest = read_manifest(tmp_path / "bundle")
    assert "backbone.layers.1.mixer.experts.5.down_proj.weight" in manifest.weights
    assert "backbone.layers.1.mixer.gate.e_score_correction_bias" in manifest.weights
    assert (manifest.model["n_routed_experts"], manifest.model["num_experts_per_tok"]) == (6, 2)


def test_who_loads_quantized_experts_is_not_claimed(source: Path) -> None:
    """Only FP8 with one scale per tensor is published for engines."""
    config = open_checkpoint(source).config
    for layout in CheckpointFormat:
        for precision in (Precision.INT8_WO, Precision.FP8, Precision.FP8_DYNAMIC):
            found = loader_verdicts(layout, precision, None, config)
            is_published = (layout, precision) == (CheckpointFormat.MODELOPT, Precision.FP8)
            others = [name for name in found if name != BUILD and found[name].startswith("yes")]
            assert bool(others) == is_published, (layout, precision, found)


def test_equal_scores_choose_the_first_experts(tmp_path: Path) -> None:
    """A router of zeros: the same experts, and the same logits, on both engines."""
    model = reference.nemotron_h("E", n_group=1)
    for layer in model.model.layers:
        layer.mixer.gate.weight.data.zero_()
        layer.mixer.gate.e_score_correction_bias.zero_()
    folder, rows = reference.save(model, tmp_path / "c"), []
    for backend in ("native", "onnxruntime"):
        spec = BuildSpec(backend, precision=Precision.FP32, limits=LIMITS)
        build_engine(folder, tmp_path / backend, spec)
        engine = registry.find_cpu(backend).load(tmp_path / backend, LIMITS, 1)
        rows.append(engine.step([Feed(engine.allocate(), [1, 2, 3])])[0].copy())
        engine.close()
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5, rtol=0)
