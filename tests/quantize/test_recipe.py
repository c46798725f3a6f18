"""Recipes: what the built-in ones say, and what a wrong one is told."""

import re
from pathlib import Path

import pytest

from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import known_gpus, load_gpu
from nemotrt.quantize.gpus import choose_format, choose_recipe
from nemotrt.quantize.recipes.recipe import load_recipe, recipe_names
from nemotrt.quantize.recipes.selection import select
from support.wide_checkpoint import FULL_PATTERN, raw_config

NANO = raw_config(FULL_PATTERN, 131072)


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_names() -> None:
    assert recipe_names() == [
        *("fp8", "fp8-dynamic", "int4-wo", "int8-dynamic", "int8-sq", "int8-wo", "nvfp4")
    ]


@pytest.mark.parametrize("name", ["fp8", "fp8-dynamic"])
def test_fp8_is_what_nvidia_published(name: str) -> None:
    """27 Mamba and 25 MLP layers quantized; attention, conv1d and lm_head not."""
    chosen = select(parse_model_config(NANO), load_recipe(name))
    assert len(chosen.weights) == 2 * 27 + 2 * 25
    assert len(chosen.exclude) == 1 + 27 + 4 * 4
    assert {int(name.split(".")[2]) for name in chosen.exclude if "q_proj" in name} == {
        14,
        21,
        30,
        39,
    }
    assert "lm_head" in chosen.exclude and "backbone.layers.0.mixer.conv1d" in chosen.exclude
    assert not any("*" in name or name.startswith("re:") for name in chosen.exclude)


def test_keep_attention_feeders() -> None:
    """The last Mamba layer before each attention layer: 13, 20, 29, 38."""
    config, recipe = parse_model_config(NANO), load_recipe("fp8")
    spared = set(select(config, recipe).weights)
    spared -= set(select(config, recipe, keep_feeders=True).weights)
    assert {int(name.split(".")[2]) for name in spared} == {13, 20, 29, 38}
    assert {name.split(".")[-2] for name in spared} == {"in_proj", "out_proj"}


def test_a_model_without_feeders_has_none_to_keep() -> None:
    config = parse_model_config(NANO | {"hybrid_override_pattern": "M-M-", "num_hidden_layers": 4})
    with pytest.raises(ConfigError, match="no Mamba layer of this model feeds attention"):
        select(config, load_recipe("fp8"), keep_feeders=True)


@pytest.mark.parametrize("gpu", ["a10g", "a100", "a100-40"])
def test_fp8_is_refused_before_ada(gpu: str) -> None:
    with pytest.raises(ConfigError, match=r"no FP8 tensor cores before 8.9. Use --recipe int8-wo"):
        choose_recipe("fp8", gpu)
    with pytest.raises(ConfigError, match="--kv-cache fp8 needs"):
        choose_recipe("int8-wo", gpu, "fp8")


def test_a_recipe_of_yours_is_refused_for_its_own_reason(tmp_path: Path) -> None:
    mine = written(
        tmp_path, "{description: x, algo: W8A16, min_compute_capability: 9, quantize: {}}"
    )
    with pytest.raises(ConfigError, match=r"mine needs compute capability 9.0, a100 has 8.0\. Use"):
        choose_recipe(mine, "a100")


def test_gpus_choose() -> None:
    assert choose_recipe(None, "a10g").name == "int8-wo"
    assert choose_recipe(None, "h100").name == "fp8-dynamic"
    assert choose_recipe("fp8", "h100", "fp8").name == "fp8"
    assert choose_format(None, load_recipe("fp8")).value == "modelopt"
    # ModelOpt's layout has no loader for them but ours, or few.
    for name in ("int8-dynamic", "int4-wo"):
        assert choose_format(None, load_recipe(name)).value == "compressed-tensors"
        assert choose_format("modelopt", load_recipe(name)).value == "modelopt"
    for gpu in map(load_gpu, known_gpus()):
        have = float(gpu.compute_capability or 0)
        if have < 8.0:  # known to plans of other engines alone
            with pytest.raises(ConfigError, match="No recipe here is for it"):
                choose_recipe(None, gpu.name)
            continue
        assert choose_recipe(None, gpu.name).min_compute_capability <= have


@pytest.mark.parametrize(
    ("recipe", "gpu", "message"),
    [
        ("fp8-dynamc", None, "did you mean 'fp8-dynamic'"),
        ("fp8", "h10", "unknown GPU 'h10'"),
        (None, "A10G", "unknown GPU 'A10G'; did you mean 'a10g'"),
        ("Int8-WO", None, "did you mean 'int8-wo'"),
        (None, None, "--recipe, or --gpu"),
    ],
)
def test_unknown_names(recipe: str | None, gpu: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_recipe(recipe, gpu)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algos: FP8", "unknown key 'algos'; did you mean 'algo'"),
        ("[1, 2]", "must be a mapping"),
        ("a: b: c", "not YAML"),
        ("{description: x, algo: FP9, min_compute_capability: 9, quantize: {}}", "algo: Input"),
        (
            "{description: x, algo: FP8, min_compute_capability: 9, smoothquant_alpha: 0.5, "
            "quantize: {}}",
            "smoothquant_alpha needs",
        ),
        (
            "{description: x, algo: FP8, min_compute_capability: 9, "
            "quantize: {qwen3: {mlp: [up_proj]}}, keep: {qwen3: {mlp: [up_proj]}}}",
            "up_proj is in both",
        ),
    ],
)
def test_a_wrong_recipe_is_told_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(written(tmp_path, text))
    assert "mine.yaml" in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("quantize", "keep", "message"),
    [
        (
            "attention: [q_proj, k_proj, o_proj]",
            "attention: [v_proj], mamba: [in_proj, out_proj], mlp: [up_proj, down_proj]",
            r"14.mixer.{q_proj,k_proj,v_proj} as one, but only q_proj, k_proj is quantized",
        ),
        (
            "mlp: [up_proj, down_proj, lm_head]",
            "mamba: [in_proj, out_proj], attention: [q_proj, k_proj, v_proj, o_proj]",
            "unknown linear of mlp in recipe mine 'lm_head'",
        ),
    ],
)
def test_what_no_engine_could_run_is_refused(
    tmp_path: Path, quantize: str, keep: str, message: str
) -> None:
    text = (
        "{description: x, algo: W8A16, min_compute_capability: 8, "
        f"quantize: {{nemotron_h: {{{quantize}}}}}, keep: {{nemotron_h: {{{keep}}}}}}}"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        select(parse_model_config(NANO), load_recipe(written(tmp_path, text)))


def test_a_recipe_must_place_every_linear(tmp_path: Path) -> None:
    text = "{description: x, algo: W8A16, min_compute_capability: 8, quantize: {nemotron_h: {}}}"
    with pytest.raises(ConfigError, match="says neither quantize nor keep for nemotron_h mamba"):
        select(parse_model_config(NANO), load_recipe(written(tmp_path, text)))
