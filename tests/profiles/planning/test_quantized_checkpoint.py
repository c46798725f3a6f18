"""A plan of a quantized folder is of what its files hold; the oracle is the files' bytes."""

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import save_file

from nemotrt.cli import main
from nemotrt.engines.backends.native import export as native
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import linear_names
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy, formats_of
from nemotrt.profiles.planning.memory.weights import weights_bytes
from nemotrt.profiles.planning.time.engine_profile import load_engine
from nemotrt.profiles.planning.time.linears import linears
from support.own_recipes import OWN_RECIPES

GROUP = 32
PRECISIONS = {
    "fp8": "fp8",
    "fp8-dynamic": "fp8-dynamic",
    "int8-sq": "int8-sq",
    "int8-dynamic": "int8-dynamic",
    "int8-wo": "int8-wo",
    "int4-wo": "int4-wo",
}
Make = Callable[..., Path]


def run(*args: str) -> Any:
    return CliRunner().invoke(main, ["plan", *args])


def planned(*args: str) -> dict[str, Any]:
    result = run(*args, "--gpu", "h100", "--isl", "64", "--osl", "64", "--json")
    assert result.exit_code == 0, result.stderr
    raw: dict[str, Any] = json.loads(result.stdout)
    return raw


def stored_bytes(folder: Path) -> int:
    """The bytes of all tensors, by safetensors' own reader."""
    total = 0
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, "np") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                width = {"BF16": 2, "F32": 4, "I32": 4, "I64": 8, "F16": 2}.get(part.get_dtype(), 1)
                total += math.prod(part.get_shape()) * width
    return total


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function: model, recipe, layout, KV cache -> a folder of our own quantizer."""
    folder = tmp_path_factory.mktemp("quantized")

    def make(model: str, recipe: str, layout: str = "modelopt", kv_cache: str = "none") -> Path:
        target = folder / f"{model}-{recipe}-{layout}-{kv_cache}"
        if not target.exists():
            command = ["quantize", model, "--recipe", recipe, "--format", layout, "-q"]
            command += ["--kv-cache", kv_cache, "--calibration", str(folder / model)]
            result = CliRunner().invoke(main, [*command, "-o", str(target)])
            assert result.exit_code == 0, result.stderr
        return target

    return make


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
@pytest.mark.parametrize("recipe", OWN_RECIPES)
@pytest.mark.parametrize("model", ["tiny", pytest.param("tiny-dense", marks=pytest.mark.slow)])
def test_a_folder_is_planned_as_it_is(
    model: str, recipe: str, layout: str, quantized: Make
) -> None:
    folder = quantized(model, recipe, layout)
    raw = planned(str(folder))
    assert raw["precision"] == PRECISIONS[recipe]
    assert raw["kv_dtype"] == "bf16"
    assert raw["weights_bytes"] == pytest.approx(stored_bytes(folder), rel=0.01)
    assert raw["weights_bytes"] < 0.9 * planned(model)["weights_bytes"]
    assert not [note for note in raw["notes"] if str(folder) in note]
    # Without the weights, its configs tell nearly the same.
    alone = folder.with_name(f"{folder.name}-configs")
    alone.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        shutil.copy(path, alone)
    assert planned(str(alone))["weights_bytes"] == pytest.approx(raw["weights_bytes"], rel=0.01)
    assert planned(str(folder / "config.json")) | {"model": 0} == raw | {"model": 0}


def write_int4(folder: Path, method: str) -> Path:
    """The tiny model with its linears in 4 bits, as AutoAWQ, GPTQModel or llm-compressor pack."""
    source = TINY_MODELS["tiny"]
    raw = json.loads((source / "config.json").read_text())
    # AWQ packs eight outputs; in_proj's 1478 are no multiple, so its quantizers leave it.
    left_out = ["backbone.layers.1.mixer.up_proj"]
    left_out += [f"backbone.layers.{n}.mixer.in_proj" for n in (0, 2, 5, 7)]
    quantization: dict[str, Any] = {"quant_method": method, "bits": 4, "group_size": GROUP}
    if method == "compressed-tensors":
        weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}
        group = {"weights": weights, "input_activations": None, "targets": ["Linear"]}
        quantization = {
            "quant_method": method,
            "format": "pack-quantized",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head", *left_out],
        }
    elif method == "awq":
        quantization["modules_to_not_convert"] = ["layers.1.mixer.up_proj", "in_proj"]
    folder.mkdir()
    raw["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(raw))
    modules = {name.removesuffix(".weight") for name in linear_names(parse_model_config(raw))}
    tensors: dict[str, Any] = {}
    with safe_open(source / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            module, shape = name.removesuffix(".weight"), file.get_slice(name).get_shape()
            if module not in modules or module in left_out:
                tensors[name] = np.zeros(shape, np.float16)
                continue
            rows, columns = shape
            groups = columns // GROUP
            if method == "compressed-tensors":
                tensors[f"{module}.weight_packed"] = np.zeros((rows, columns // 8), np.int32)
                tensors[f"{module}.weight_scale"] = np.zeros((rows, groups), np.float16)
                tensors[f"{module}.weight_shape"] = np.zeros(2, np.int64)
                continue
            packed = (columns, rows // 8) if method == "awq" else (columns // 8, rows)
            tensors[f"{module}.qweight"] = np.zeros(packed, np.int32)
            tensors[f"{module}.qzeros"] = np.zeros((groups, rows // 8), np.int32)
            tensors[f"{module}.scales"] = np.zeros((groups, rows), np.float16)
            if method == "gptq":
                tensors[f"{module}.g_idx"] = np.zeros(columns, np.int32)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors"])
def test_four_bit_folders(method: str, tmp_path: Path) -> None:
    folder = write_int4(tmp_path / "c", method)
    raw = planned(str(folder))
    assert raw["precision"] == "int4-wo"
    assert raw["weights_bytes"] == pytest.approx(stored_bytes(folder), rel=0.01)
    assert raw["weights_bytes"] < 0.8 * planned("tiny")["weights_bytes"]
    (folder / "model.safetensors").unlink()
    if method != "gptq":  # whose config does not name what is left out
        by_config = planned(str(folder))["weights_bytes"]
        assert by_config == pytest.approx(raw["weights_bytes"], rel=0.01)
    limits = tmp_path / "limits.yaml"
    told = run(str(folder), "--gpu", "h100", "--write-limits", str(limits))
    if method == "compressed-tensors":  # in symmetric groups of 32, as our kernels take them
        assert told.exit_code == 0 and limits.exists()
    else:
        assert told.exit_code == 2 and "does not build int4-wo" in told.stderr


def test_the_linears_left_in_16_bits_multiply_in_16_bits(quantized: Make) -> None:
    """The recipe leaves the two attention layers; every other linear is FP8."""
    options = DeploymentOptions(str(quantized("tiny", "fp8")), "h100", isl=64, osl=64)
    deployment = deploy(options)
    found = {part.name: part for part in linears(deployment.model, deployment.formats)}
    assert {name: part.arithmetic.value for name, part in found.items()} == {
        "qkv_proj": "bf16",
        "o_proj": "bf16",
        "mlp_up": "fp8",
        "mlp_down": "fp8",
        "mamba_in_proj": "fp8",
        "mamba_out_proj": "fp8",
    }
    # 4 MLP layers of 512 x 256 codes, with weight_scale and input_scale.
    assert found["mlp_up"].num_bytes == 4 * (512 * 256 + 8)
    assert found["o_proj"].num_bytes == 2 * 256 * 384 * 2


def test_a_group_with_layers_of_both_kinds(tmp_path: Path) -> None:
    """One of the four MLPs keeps 16 bits: two operators, 3 and 1 layers."""
    folder = write_int4(tmp_path / "c", "awq")
    deployment = deploy(DeploymentOptions(str(folder), "h100", isl=64, osl=64))
    up = [p for p in linears(deployment.model, deployment.formats) if p.name.startswith("mlp_up")]
    assert [(p.num_layers, p.arithmetic.value) for p in up] == [(3, "bf16"), (1, "bf16")]
    groups = 256 // GROUP
    assert up[0].num_bytes == 3 * (512 * 256 // 2 + groups * 512 * (2 + 0.5))
    assert up[1].num_bytes == 512 * 256 * 2


@pytest.mark.parametrize(
    ("kv_cache", "gpu", "engine", "expected"),
    [
        ("fp8", "h100", "nemotrt", "fp8"),
        ("fp8", "h100", "vllm", "fp8"),
        ("fp8", "h100", "tensorrt", "bf16"),
        ("fp8", "a10g", "nemotrt", "bf16"),
        ("int8", "a10g", "tensorrt-llm", "int8"),
    ],
)
def test_the_kv_cache_is_the_checkpoints(
    kv_cache: str, gpu: str, engine: str, expected: str, quantized: Make
) -> None:
    """On Hopper FP8 it is, on Ampere 16 bits; `tensorrt` has one type. The difference is said."""
    for layout in ("modelopt", "compressed-tensors"):
        folder = str(quantized("tiny", "int8-wo", layout, kv_cache))
        result = run(
            folder, "--gpu", gpu, "--engine", engine, "--isl", "64", "--osl", "64", "--json"
        )
        assert result.exit_code == 0, result.stderr
        raw = json.loads(result.stdout)
        assert raw["kv_dtype"] == expected
        # 2 x 2 KV heads x 64 x 2 attention layers
        assert raw["kv_cache_bytes_per_token"] == 512 * (2 if expected == "bf16" else 1)
        said = [note for note in raw["notes"] if "KV cache of" in note]
        assert len(said) == (expected != kv_cache)


@pytest.mark.parametrize(
    ("value", "expected", "num_bytes"),
    [("float32", "fp32", 4), ("bfloat16", "bf16", 2), ("float16", "fp16", 2), (None, "fp32", 4)],
)
def test_the_ssm_states_are_the_configs(
    value: str | None, expected: str, num_bytes: int, tmp_path: Path
) -> None:
    folder = copy_config(tmp_path, mamba_ssm_cache_dtype=value)
    raw = planned(str(folder))
    assert raw["ssm_dtype"] == expected
    # 4 Mamba layers of 6 heads x 80 x 128
    assert raw["ssm_state_bytes_per_request"] == 4 * 6 * 80 * 128 * num_bytes
    other = planned(str(folder), "--ssm-dtype", "bf16" if expected == "fp32" else "fp32")
    said = [note for note in other["notes"] if "SSM states of" in note]
    assert len(said) == (value is not None)


def copy_config(folder: Path, **changes: Any) -> Path:
    raw = json.loads((TINY_MODELS["tiny"] / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def test_a_flag_that_contradicts_the_folder_says_so(quantized: Make, tmp_path: Path) -> None:
    folder = str(quantized("tiny", "int8-wo"))
    page = tmp_path / "plan.html"
    args = (folder, "--precision", "bf16", "--kv-dtype", "fp8", "--plot", str(page))
    raw = planned(*args)
    assert raw["weights_bytes"] == planned("tiny")["weights_bytes"]
    precision, kv = raw["notes"][:2]
    assert "is stored in int8-wo (ModelOpt W8A16), but this plan is for bf16" in precision
    assert "is bf16 by its config, but this plan has a fp8 one" in kv
    table = " ".join(run(*args[:-2], "--gpu", "h100", "--isl", "64", "--osl", "64").stdout.split())
    assert "but this plan is for bf16" in table
    assert "but this plan is for bf16" in page.read_text()


def test_a_baseline_is_planned_as_its_folder_is(quantized: Make, tmp_path: Path) -> None:
    ours, theirs = str(quantized("tiny", "int8-wo")), str(quantized("tiny-dense", "fp8"))
    raw = planned(ours, "--baseline", theirs)
    assert (raw["precision"], raw["baseline"]["precision"]) == ("int8-wo", "fp8")
    expected = stored_bytes(Path(theirs))
    assert raw["baseline"]["weights_bytes"] == pytest.approx(expected, rel=0.01)
    both = planned(ours, "--baseline", theirs, "--precision", "int8-wo")
    assert both["baseline"]["precision"] == "int8-wo"
    assert f"{theirs} is stored in fp8" in both["baseline"]["notes"][0]
    shown = run(ours, "--baseline", theirs, "--precision", "int8-wo", "--gpu", "h100")
    assert "is stored in fp8" in " ".join(shown.stdout.split())
    assert planned("tiny", "--baseline", "tiny-dense")["baseline"]["precision"] == "bf16"


def test_any_precision_may_be_the_files_own(tmp_path: Path) -> None:
    """Four bits move the fewest bytes, so they win where memory decides."""
    folder = write_int4(tmp_path / "c", "awq")
    target = ("--tpot-ms", "50")
    raw = planned(str(folder), "--precision", "any", *target)
    others = [planned(str(folder), "--precision", p, *target) for p in ("bf16", "int8-wo", "fp8")]
    best = max(one["tokens_per_s"]["best"] for one in [*others, planned(str(folder), *target)])
    assert raw["tokens_per_s"]["best"] == best


def test_a_sweep_is_of_the_folder_too(quantized: Make) -> None:
    folder = str(quantized("tiny", "int8-wo"))
    sweep = ("sweep", folder, "--gpu", "h100", "--lengths", "64:64")
    rows = list(csv.DictReader(io.StringIO(run(*sweep).stdout)))
    assert [(row["precision"], row["note"]) for row in rows] == [("int8-wo", "")]
    rows = list(csv.DictReader(io.StringIO(run(*sweep, "--precision", "fp8").stdout)))
    assert "is stored in int8-wo" in rows[0]["note"]
    dense = str(quantized("tiny-dense", "fp8"))
    rows = list(csv.DictReader(io.StringIO(run(*sweep, "--baseline", dense).stdout)))
    assert [(row["precision"], row["note"], bool(row["ratio"])) for row in rows] == [
        ("int8-wo", "", True)
    ]


def test_a_float32_folder_is_planned_in_16_bits_and_says_so(tmp_path: Path) -> None:
    folder = copy_config(tmp_path, torch_dtype="float32")
    raw = planned(str(folder))
    assert raw["precision"] == "bf16"
    assert raw["weights_bytes"] == planned("tiny")["weights_bytes"]
    assert "is stored in fp32; engines run what is not quantized in 16 bits" in raw["notes"][0]
    with safe_open(TINY_MODELS["tiny"] / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    (folder / "config.json").unlink()
    copy_config(folder)  # says bfloat16; the files hold float32
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    assert "is stored in fp32" in planned(str(folder))["notes"][0]
    assert not any("is stored in" in n for n in planned("tiny", "--precision", "int8-wo")["notes"])


UNKNOWN = {
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "mxfp4": {"quant_method": "mxfp4"},
    "hqq": {"quant_method": "hqq"},
    "W4A8_NVFP4_FP8": {"quant_method": "modelopt", "quant_algo": "W4A8_NVFP4_FP8"},
    "MIXED_PRECISION": {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
    "2 bits": {"quant_method": "gptq", "bits": 2, "group_size": 128},
    "3 bits": {"quant_method": "awq", "bits": 3},
    "NVFP4 KV": {
        "quant_method": "modelopt",
        "quant_algo": "FP8",
        "kv_cache_scheme": {"num_bits": 4, "type": "float"},
    },
    "quant_method": {"bits": 4},
    "float', 4": {
        "quant_method": "compressed-tensors",
        "config_groups": {"a": {"weights": {"num_bits": 4, "type": "float"}}},
    },
    "2 kinds": {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "a": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}},
            "b": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}},
        },
    },
    "bad regex": {
        "quant_method": "compressed-tensors",
        "config_groups": {"a": {"weights": {"num_bits": 8, "type": "int"}}},
        "ignore": ["re:("],
    },
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_planner_does_not_know_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = copy_config(tmp_path, quantization_config=UNKNOWN[name])
    for args in ([str(folder)], ["tiny", "--baseline", str(folder)], ["sweep", str(folder)]):
        result = run(*args, "--gpu", "h100") if args[0] != "sweep" else run(*args)
        assert result.exit_code == 2, result.output
        assert "config.json" in result.stderr
        assert name.removesuffix(" KV").removeprefix("NV") in result.stderr or "4" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("algo", ["MXFP8", "W4A8_AWQ", "MIXED_PRECISION"])
def test_hf_quant_config_alone_counts(algo: str, tmp_path: Path) -> None:
    """ModelOpt's exports before 0.30 have no quantization_config in config.json."""
    folder = copy_config(tmp_path)
    path = folder / "hf_quant_config.json"
    path.write_text(json.dumps({"quantization": {"quant_algo": algo}}))
    result = run(str(folder), "--gpu", "h100")
    assert result.exit_code == 2
    assert algo in result.stderr
    path.write_text(
        json.dumps({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}})
    )
    raw = planned(str(folder), "--engine", "nemotrt")
    assert (raw["precision"], raw["kv_dtype"]) == ("fp8", "fp8")
    path.write_text(
        json.dumps({"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}})
    )
    raw = planned(str(folder), "--engine", "nemotrt")
    assert (raw["precision"], raw["kv_dtype"]) == ("bf16", "fp8")


def test_configs_and_files_must_agree(quantized: Make, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(quantized("tiny", "int8-wo"), folder)
    config, nested = folder / "config.json", folder / "hf_quant_config.json"
    raw = json.loads(config.read_text())
    config.write_text(json.dumps({**raw, "quantization_config": {"quant_method": "fp8"}}))
    assert "only one can be true" in run(str(folder)).stderr
    nested.unlink()
    assert "bytes of I8" in run(str(folder)).stderr
    del raw["quantization_config"]
    config.write_text(json.dumps(raw))
    result = run(str(folder))
    assert (result.exit_code, "no config says how" in result.stderr) == (2, True)


def test_native_takes_a_quantized_checkpoints_head_as_it_is(
    quantized: Make, tmp_path: Path
) -> None:
    """The file of a native engine is the oracle: its head has 16 bits, which `tiny`'s has not."""
    for source, is_quantized in (
        (quantized("tiny", "int8-wo"), True),
        (TINY_MODELS["tiny"], False),
    ):
        target = tmp_path / f"{is_quantized}"
        target.mkdir()
        native.export(open_checkpoint(source), target, Limits(1, 64, 16), Precision.INT8_WO)
        stored = max(path.stat().st_size for path in target.iterdir())
        options = DeploymentOptions(str(source), "h100", Precision.INT8_WO, isl=64, osl=64)
        deployment = deploy(options)
        engine = load_engine("native")
        formats = formats_of(deployment.source, engine, deployment.gpu, Precision.INT8_WO)
        # The head in the other format would be 1 MiB off, 13 %; rows fill up panels.
        assert weights_bytes(deployment.model, formats) == pytest.approx(stored, rel=0.04)
