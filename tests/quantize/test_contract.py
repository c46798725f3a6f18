"""The loaders' contracts, replayed: what is written passes, each kind of damage is named."""

import fnmatch
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.calibration.texts import read_texts, token_windows
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.contracts.loaders import LOADERS, TRT_LLM
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.options import CalibrationOptions, QuantizeOptions
from nemotrt.quantize.quality.evaluate import evaluate
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.own_recipes import OWN_RECIPES
from support.peers import peer_python

IN_PROJ = "backbone.layers.0.mixer.in_proj"
TINY = TINY_MODELS["tiny"]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def single(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(num_shards=1)


@pytest.fixture(scope="session")
def calibration(single: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract") / "c"
    save_calibration(calibrate(open_checkpoint(single), np.arange(32).reshape(2, 16)), folder)
    return folder


@pytest.mark.parametrize("layout", list(CheckpointFormat))
@pytest.mark.parametrize("recipe", OWN_RECIPES)
@pytest.mark.parametrize("kv_cache", ["none", "fp8", "int8"])
def test_what_is_written_has_no_faults(
    single: Path,
    calibration: Path,
    tmp_path: Path,
    kv_cache: str,
    recipe: str,
    layout: CheckpointFormat,
) -> None:
    options = QuantizeOptions(layout=layout, kv_cache=kv_cache, calibration=calibration)
    result = quantize_checkpoint(single, tmp_path / "out", load_recipe(recipe), options)
    found = inspect_quantized(tmp_path / "out")
    assert found.faults == ()
    assert (found.format, found.algo) == (layout, result.quant_algo)
    assert found.num_quantized == result.num_linears
    assert "vLLM" in found.loaders


@pytest.mark.parametrize("recipe", ["fp8", "fp8-dynamic"])
def test_old_and_new_loaders_match_the_exclusions_alike(
    single: Path, calibration: Path, tmp_path: Path, recipe: str
) -> None:
    """Older TensorRT-LLM: fnmatch on the full name. vLLM: exact, then substring, then fnmatch."""
    options = QuantizeOptions(calibration=calibration)
    quantize_checkpoint(single, tmp_path / "out", load_recipe(recipe), options)
    exclude = json.loads((tmp_path / "out/hf_quant_config.json").read_text())["quantization"][
        "exclude_modules"
    ]
    tensors = load_file(tmp_path / "out/model.safetensors")
    for name, tensor in tensors.items():
        if not name.endswith(".weight") or tensor.ndim < 2 or "embeddings" in name:
            continue
        module, is_codes = name.removesuffix(".weight"), tensor.dtype == torch.float8_e4m3fn
        by_trt_llm = any(fnmatch.fnmatchcase(module, pattern) for pattern in exclude)
        by_vllm = any(pattern == module or pattern in module for pattern in exclude)
        assert by_trt_llm == by_vllm == (not is_codes), name


def nan_code(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight"].view(torch.uint8)[0, 0] = 0x7F


def negative_scale(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight_scale"][1] = -1


def wrong_shape(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight_scale"] = tensors[f"{IN_PROJ}.weight_scale"][:, None].contiguous()


def no_scale(tensors: Tensors) -> None:
    del tensors[f"{IN_PROJ}.weight_scale"]


def no_norm(tensors: Tensors) -> None:
    del tensors["backbone.layers.0.norm.weight"]


def short_norm(tensors: Tensors) -> None:
    tensors["backbone.norm_f.weight"] = tensors["backbone.norm_f.weight"][1:].clone()


def no_kept_linear(tensors: Tensors) -> None:
    del tensors["backbone.layers.4.mixer.o_proj.weight"]


def stray_scale(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.input_scale"] = torch.ones(())


def stray_tensor(tensors: Tensors) -> None:
    """TensorRT-LLM would take it for an SSM parameter: it has a capital D."""
    tensors["backbone.layers.0.mixer.oldD"] = torch.ones(3)


def int8_codes(tensors: Tensors) -> None:
    """Codes of -126 .. 126, which as int8 would pass for a full range but for one."""
    codes = tensors[f"{IN_PROJ}.weight"].view(torch.int8).clone()
    codes[:, 0] = 127
    tensors[f"{IN_PROJ}.weight"] = codes


def missing_column(tensors: Tensors) -> None:
    codes = tensors[f"{IN_PROJ}.weight"].view(torch.uint8)[:, :-1].clone()
    codes[:, 0] = 0x7E
    tensors[f"{IN_PROJ}.weight"] = codes.view(torch.float8_e4m3fn)


def plain_v_proj(tensors: Tensors) -> None:
    """v_proj back in 16 bit: engines that fuse q, k and v would read codes as weights."""
    del tensors["model.layers.0.self_attn.v_proj.weight_scale"]
    plain = tensors["model.layers.0.self_attn.v_proj.weight"].to(torch.bfloat16)
    tensors["model.layers.0.self_attn.v_proj.weight"] = plain


def half_range(tensors: Tensors) -> None:
    tensors[f"{IN_PROJ}.weight"][2] = 1.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (nan_code, "in_proj has NaN codes"),
        (negative_scale, "weight_scale holds a value that is not positive"),
        (wrong_shape, r"is F32 \[.*, 1\], expected F32 \["),
        (no_scale, "in_proj.weight_scale is missing"),
        (half_range, "channel 2: the largest code is 56, not 126"),
        (no_norm, "layers.0.norm.weight is missing"),
        (short_norm, r"norm_f.weight is BF16 \[31\], expected floats \[32\]"),
        (no_kept_linear, "layers.4.mixer.o_proj.weight is missing"),
        (stray_scale, "in_proj.input_scale is no tensor of this model in this format"),
        (stray_tensor, "mixer.oldD is no tensor of this model"),
        (int8_codes, r"codes of .*in_proj are I8 .*expected F8_E4M3"),
        (missing_column, r"codes of .*in_proj are F8_E4M3 \[.*, 31\], expected .*, 32\]"),
    ],
)
def test_damage_is_named(
    single: Path, tmp_path: Path, damage: Callable[[Tensors], None], message: str
) -> None:
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"))
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    damage(tensors)
    save_file(tensors, path)
    (fault,) = inspect_quantized(tmp_path / "out").faults
    assert re.search(message, fault), fault


def test_a_part_of_a_fused_linear_is_named(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint("qwen3", num_shards=1)
    quantize_checkpoint(source, tmp_path / "out", load_recipe("fp8-dynamic"))
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    plain_v_proj(tensors)
    save_file(tensors, path)
    for name in ("config.json", "hf_quant_config.json"):
        text = (tmp_path / "out" / name).read_text()
        more = '"lm_head", "model.layers.0.self_attn.v_proj"'
        (tmp_path / "out" / name).write_text(text.replace('"lm_head"', more))
    (fault,) = inspect_quantized(tmp_path / "out").faults
    assert fault.endswith("{q_proj,k_proj,v_proj} as one, but only q_proj, k_proj is quantized")


@pytest.mark.parametrize("edit", ["another shard", "left out", "too much"])
def test_an_index_that_lies_is_named(checkpoint: Path, tmp_path: Path, edit: str) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "out", load_recipe("int8-wo"))
    path, name = tmp_path / "out/model.safetensors.index.json", f"{IN_PROJ}.weight_scale"
    index = json.loads(path.read_text())
    if edit == "another shard":
        index["weight_map"][name] = max(set(index["weight_map"].values()))
    elif edit == "left out":
        del index["weight_map"][name]
    else:
        name = "more"
        index["weight_map"][name] = min(index["weight_map"].values())
    path.write_text(json.dumps(index))
    (fault,) = inspect_quantized(tmp_path / "out").faults
    assert fault.startswith(f"model.safetensors.index.json has {name} in")


@pytest.mark.parametrize("damage", [0.0, float("nan")])
def test_a_damaged_pre_quant_scale_is_named(
    single: Path, calibration: Path, tmp_path: Path, damage: float
) -> None:
    how = CalibrationOptions(fold=False)
    options = QuantizeOptions(calibration=calibration, calibration_options=how)
    quantize_checkpoint(single, tmp_path / "out", load_recipe("int8-sq"), options)
    assert inspect_quantized(tmp_path / "out", single).faults == ()
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    tensors[f"{IN_PROJ}.pre_quant_scale"][5] = damage
    save_file(tensors, path)
    (fault,) = inspect_quantized(tmp_path / "out").faults
    assert fault == f"{IN_PROJ}.pre_quant_scale holds a value that is not positive and finite"


def test_an_fp8_cache_without_scales_is_read_with_scale_one(single: Path, tmp_path: Path) -> None:
    quantize_checkpoint(
        single, tmp_path / "out", load_recipe("int8-wo"), QuantizeOptions(kv_cache="fp8")
    )
    tokens = {"x": np.arange(32).reshape(2, 16)}
    expected = evaluate(single, tmp_path / "out", tokens).texts  # scales of 1: no calibration
    path = tmp_path / "out/model.safetensors"
    save_file(
        {k: v for k, v in load_file(path).items() if k[-7:] not in ("k_scale", "v_scale")}, path
    )
    assert inspect_quantized(tmp_path / "out").faults == ()
    found = evaluate(single, tmp_path / "out", tokens)
    assert found.texts == expected and found.precision == "W8A16, FP8 KV cache"


def test_configs_that_disagree_are_named(single: Path, tmp_path: Path) -> None:
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"))
    path = tmp_path / "out/hf_quant_config.json"
    nested = json.loads(path.read_text())
    nested["quantization"]["exclude_modules"].remove("lm_head")
    nested["quantization"]["kv_cache_quant_algo"] = "NVFP4"
    path.write_text(json.dumps(nested))
    faults = " ".join(inspect_quantized(tmp_path / "out").faults)
    assert "lm_head is not excluded" in faults
    assert "exclude_modules differ" in faults
    assert "only one of the two configs" in faults
    assert "the KV cache is NVFP4" in faults


def exclude(folder: Path, names: list[str]) -> None:
    """Let both configs of a ModelOpt folder exclude these names."""
    for name, keys in (
        ("hf_quant_config.json", ("quantization", "exclude_modules")),
        ("config.json", ("quantization_config", "ignore")),
    ):
        config = json.loads((folder / name).read_text())
        config[keys[0]][keys[1]] = names
        (folder / name).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["lm_head", "*conv1d", "*[qkvo]_proj"], None),
        (["*lm_head*", "backbone.layers.?.mixer.conv1d", "backbone.layers.4.mixer.*"], None),
        (["lm_head", "*conv1d", "*[qkv]_proj"], "o_proj is neither quantized nor excluded"),
        (["lm_head", "*mixer*"], "in_proj is quantized and excluded"),
        (["*LM_HEAD*", "*mixer.conv1d", "*[qkvo]_proj"], "lm_head is not excluded"),
        (["lm_head", "re:.*conv1d", "*[qkvo]_proj"], "conv1d is not excluded"),
    ],
)
def test_patterns_exclude_as_the_loaders_match_them(
    single: Path, tmp_path: Path, names: list[str], fault: str | None
) -> None:
    """Layer 4 is the model's attention; fnmatch is what vLLM and TensorRT-LLM call."""
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"))
    exclude(tmp_path / "out", names)
    faults = inspect_quantized(tmp_path / "out").faults
    assert (not faults) if fault is None else fault in " ".join(faults), faults


def test_our_int8_sq_in_compressed_tensors_is_refused_by_tensorrt_llm() -> None:
    """Static scales per tensor: its reader takes channel and token, or blocks, and raises."""
    verdict = LOADERS[CheckpointFormat.COMPRESSED_TENSORS, Precision.INT8_SQ][TRT_LLM]
    assert verdict == "no: refuses static activation scales in compressed-tensors"


K_SCALE = "backbone.layers.4.mixer.k_proj.k_scale"


@pytest.mark.parametrize(
    ("edit", "kv_cache", "message"),
    [
        (lambda tensors: tensors[K_SCALE].fill_(0), "fp8", "not positive and finite"),
        (lambda tensors: tensors.update({K_SCALE: torch.ones(2)}), "fp8", r"expected F32 \[\]"),
        (lambda tensors: tensors.pop(K_SCALE), "int8", "is missing: an int8 KV cache"),
        (lambda tensors: tensors.update({K_SCALE: torch.ones(())}), "none", "is not quantized"),
    ],
)
def test_damage_to_the_caches_scales_is_named(
    single: Path,
    calibration: Path,
    tmp_path: Path,
    edit: Callable[[Tensors], object],
    kv_cache: str,
    message: str,
) -> None:
    options = QuantizeOptions(kv_cache=kv_cache, calibration=calibration)
    quantize_checkpoint(single, tmp_path / "out", load_recipe("int8-wo"), options)
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    (fault,) = inspect_quantized(tmp_path / "out").faults
    assert fault.startswith(K_SCALE) and re.search(message, fault), fault


@pytest.mark.parametrize("layout", list(CheckpointFormat))
def test_an_int8_cache_changes_who_loads_it(
    single: Path, calibration: Path, tmp_path: Path, layout: CheckpointFormat
) -> None:
    recipe = load_recipe("fp8-dynamic")
    verdicts = {}
    for kv_cache in ("fp8", "int8"):
        options = QuantizeOptions(layout=layout, kv_cache=kv_cache, calibration=calibration)
        quantize_checkpoint(single, tmp_path / kv_cache, recipe, options)
        verdicts[kv_cache] = inspect_quantized(tmp_path / kv_cache).loaders
    assert verdicts["fp8"]["TensorRT-LLM (PyTorch)"] == verdicts["fp8"]["vLLM"] == "yes"
    assert verdicts["int8"]["TensorRT-LLM (PyTorch)"].startswith("no: refuses an int8 KV cache")
    vllm = (
        "yes, with the KV cache in 16 bit"
        if layout is CheckpointFormat.MODELOPT
        else "no: refuses an int8"
    )
    assert verdicts["int8"]["vLLM"].startswith(vllm)
    in_transformers = verdicts["fp8"]["transformers"]
    assert ("the KV cache by its scales" in in_transformers) == (
        layout is not CheckpointFormat.MODELOPT
    )
    assert verdicts["int8"]["nemotrt build"].startswith("yes")


def test_a_scheme_of_another_kind_is_refused(single: Path, tmp_path: Path) -> None:
    """Group scales, float4 without them, static scales a token: none of our arithmetic."""
    options = QuantizeOptions(layout=CheckpointFormat.COMPRESSED_TENSORS)
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"), options)
    path = tmp_path / "out/config.json"
    config = json.loads(path.read_text())
    group = config["quantization_config"]["config_groups"]["group_0"]
    for part, key, value in (
        ("weights", "strategy", "group"),
        ("weights", "num_bits", 4),
        ("weights", "num_bits", 3),
        ("input_activations", "dynamic", False),
    ):
        before, group[part][key] = group[part][key], value
        path.write_text(json.dumps(config))
        with pytest.raises(ConfigError, match="are none of W8A16"):
            inspect_quantized(tmp_path / "out")
        group[part][key] = before
    del group["weights"]
    path.write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match="malformed: KeyError"):
        inspect_quantized(tmp_path / "out")


def test_regexes_and_bfloat16_scales_of_compressed_tensors(single: Path, tmp_path: Path) -> None:
    """As llm-compressor writes them; in ModelOpt's layout both are faults."""
    options = QuantizeOptions(layout=CheckpointFormat.COMPRESSED_TENSORS)
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"), options)
    path, file = tmp_path / "out/config.json", tmp_path / "out/model.safetensors"
    tensors = load_file(file)
    tensors[f"{IN_PROJ}.weight_scale"] = tensors[f"{IN_PROJ}.weight_scale"].bfloat16()
    save_file(tensors, file)
    config = json.loads(path.read_text())
    config["quantization_config"]["ignore"] = ["lm_head", "re:.*conv1d", "re:.*[qkvo]_proj$"]
    path.write_text(json.dumps(config))
    assert inspect_quantized(tmp_path / "out").faults == ()
    config["quantization_config"]["ignore"][1] = "re:.*(conv1d"
    path.write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match="bad regex"):
        inspect_quantized(tmp_path / "out")


LLM_COMPRESSOR = """
import sys
from llmcompressor import model_free_ptq
model_free_ptq(sys.argv[1], sys.argv[2], scheme="FP8_DYNAMIC", max_workers=1, device="cpu",
    ignore=["re:.*conv1d", "lm_head", "re:.*embeddings", "re:.*norm.*", "re:.*[qkvo]_proj"])
"""


@pytest.mark.slow
def test_llm_compressors_own_output_is_read(tmp_path: Path) -> None:
    """Its codes and scales pass our checks against the source, and its quality is near ours."""
    theirs = str(tmp_path / "theirs")
    command = [str(peer_python("llm-compressor")), "-c", LLM_COMPRESSOR, str(TINY), theirs]
    subprocess.run(command, check=True, capture_output=True)
    assert inspect_quantized(tmp_path / "theirs", TINY).faults == ()
    quantize_checkpoint(TINY, tmp_path / "ours", load_recipe("fp8-dynamic"))
    text = read_texts(TINY.parent / "heldout/en.txt")
    tokens = {"en": token_windows(TINY, text, 128, 4)}
    found = [evaluate(TINY, tmp_path / name, tokens).texts[0] for name in ("theirs", "ours")]
    assert found[0].mean_kl_divergence == pytest.approx(found[1].mean_kl_divergence, rel=0.5)


@pytest.mark.parametrize("recipe", ["int8-wo", "int4-wo", "fp8-dynamic"])
def test_both_layouts_are_opened_as_one_checkpoint(
    single: Path, tmp_path: Path, recipe: str
) -> None:
    """Codes and scales are the same numbers, whichever way they are spelled."""
    opened = []
    for layout in CheckpointFormat:
        options = QuantizeOptions(layout=layout)
        quantize_checkpoint(single, tmp_path / layout, load_recipe(recipe), options)
        opened.append(open_checkpoint(tmp_path / layout))
    first, second = opened
    assert first.quant.precision is second.quant.precision is load_recipe(recipe).precision
    # ModelOpt's int4 has factors of one besides.
    names = [{x for x in one.used_names() if "pre_quant" not in x} for one in opened]
    assert names[0] == names[1]
    for name in names[0]:
        assert np.array_equal(first[name].map(), second[name].map()), name


@pytest.mark.parametrize("kv_cache", ["none", "fp8"])
def test_either_of_modelopts_configs_is_enough(single: Path, tmp_path: Path, kv_cache: str) -> None:
    options = QuantizeOptions(kv_cache=kv_cache)
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"), options)
    both = inspect_quantized(tmp_path / "out", single)
    nested = tmp_path / "out/hf_quant_config.json"
    nested.rename(tmp_path / "aside")
    quant = open_checkpoint(tmp_path / "out").quant
    assert inspect_quantized(tmp_path / "out", single) == both and both.faults == ()
    (tmp_path / "aside").rename(nested)
    assert open_checkpoint(tmp_path / "out").quant == quant
    config = json.loads((tmp_path / "out/config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    assert inspect_quantized(tmp_path / "out", single) == both


def test_other_ways_to_quantize_are_refused(single: Path, tmp_path: Path) -> None:
    quantize_checkpoint(single, tmp_path / "out", load_recipe("fp8-dynamic"))
    (tmp_path / "out/hf_quant_config.json").unlink()
    config = json.loads((tmp_path / "out/config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 3}
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    for read in (inspect_quantized, open_checkpoint):
        with pytest.raises(ConfigError, match=r"GPTQ of 3 bits.*4 and 8 bits.*16 bit checkpoint"):
            read(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"quantized already .*gptq"):
        quantize_checkpoint(tmp_path / "out", tmp_path / "again", load_recipe("int8-wo"))


def test_a_plain_checkpoint_is_refused(single: Path) -> None:
    with pytest.raises(ConfigError, match="is not quantized"):
        inspect_quantized(single)
