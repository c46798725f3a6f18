"""TensorRT plans, really compiled here for GPUs that are not here."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import Manifest, read_manifest
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.compile.layer_check import (
    LAYERS_FILE,
    LayerCheck,
    check_layers,
)
from nemotrt.engines.backends.tensorrt.compile.layer_report import read_report
from nemotrt.engines.backends.tensorrt.compile.layer_table import print_layers
from nemotrt.engines.backends.tensorrt.graph.options import TensorRTOptions
from nemotrt.engines.backends.tensorrt.run.engine import FED
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.model.tensor_names import linear_names
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import (
    ChildProcessFailedError,
    EnvironmentUnfitError,
)
from nemotrt.files import memory
from nemotrt.profiles.planning.memory.workspace import PromptCall, workspace_bytes
from nemotrt.profiles.planning.time.engine_profile import Scratch
from support.sparse_checkpoint import write_sparse

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)


def check(folder: Path, source: Path, manifest: Manifest) -> LayerCheck:
    """Return the findings of an engine directory's layer report."""
    report = read_report(json.loads((folder / LAYERS_FILE).read_text()))
    stored = {name: weight.dtype for name, weight in manifest.weights.items()}
    config = open_checkpoint(source).config
    return check_layers(report, config, stored, manifest.precision)


def check_bindings(folder: Path, manifest: Manifest, checkpoint: Checkpoint) -> None:
    """The manifest says which tensor feeds which input of the very graph, and how it looks."""
    graph = onnx.load(str(folder / GRAPH_FILE), load_external_data=False).graph
    inputs = {value.name: value.type.tensor_type for value in graph.input}
    states = ("conv_", "ssm_", "k_cache_", "v_cache_")
    fed = {name for name in inputs if name in FED or name.startswith(states)}
    assert set(manifest.weights) == set(inputs) - fed
    for name, weight in manifest.weights.items():
        ref = checkpoint[weight.tensor]
        assert name == weight.tensor
        assert weight.sha256 == hashlib.sha256(ref.read(0, ref.num_bytes)).hexdigest()
        assert weight.shape == (ref.shape[::-1] if weight.is_transposed else ref.shape)
        assert weight.shape == tuple(dim.dim_value for dim in inputs[name].shape.dim)
        kinds = {"BF16": "BFLOAT16", "I8": "INT8", "F8_E4M3": "FLOAT8E4M3FN"}
        assert inputs[name].elem_type == onnx.TensorProto.DataType.Value(kinds[weight.dtype])


@pytest.fixture(scope="module")
def plan_of(
    compiled_tiny: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a function: tiny model -> its bf16 engine, for A100 (hybrid) or A10G (dense)."""
    dense = tmp_path_factory.mktemp("plans") / "dense"

    def built(name: str) -> Path:
        if name == "tiny":
            return compiled_tiny("bf16", "a100")
        if not dense.exists():
            build_engine(TINY_MODELS[name], dense, BuildSpec("tensorrt", "a10g", limits=LIMITS))
        return dense

    return built


@pytest.mark.parametrize(
    ("name", "capability"),
    [("tiny", "8.0"), pytest.param("tiny-dense", "8.6", marks=pytest.mark.slow)],
)
def test_plans_compile_with_the_weights_outside(
    name: str, capability: str, plan_of: Callable[[str], Path]
) -> None:
    source, folder = TINY_MODELS[name], plan_of(name)
    manifest = read_manifest(folder)
    assert manifest.executed is False
    assert manifest.precision is Precision.BF16
    assert manifest.compute_capability == capability
    plan = (folder / compiler.PLAN_FILE).read_bytes()
    assert len(plan) > 100_000
    checkpoint = open_checkpoint(source)
    assert set(manifest.weights) >= set(linear_names(checkpoint.config))
    check_bindings(folder, manifest, checkpoint)
    largest = max(manifest.weights, key=lambda name: checkpoint[name].num_bytes)
    assert checkpoint[largest].num_bytes > 1_000_000
    assert checkpoint[largest].map().tobytes() not in plan
    found = check(folder, source, manifest)
    assert found.faults == ()
    assert found.fused_attention == dict.fromkeys(
        ("decode", "prefill"), checkpoint.config.num_attention_layers
    )


@pytest.mark.parametrize(
    ("precision", "gpu", "how"),
    [
        pytest.param("int8-wo", "a10g", "bf16 x int8 fused", marks=pytest.mark.slow),
        pytest.param("int8-wo", "a100", "bf16 x int8 fused", marks=pytest.mark.slow),
        pytest.param("int8-sq", "a10g", "int8 x int8 gemm", marks=pytest.mark.slow),
        pytest.param("int8-sq", "a100", "int8 x int8 gemm", marks=pytest.mark.slow),
        ("fp8", "l4", "fp8 x fp8 gemm"),
    ],
)
def test_quantized_linears_run_in_their_own_type(
    precision: str,
    gpu: str,
    how: str,
    quantized_tiny: Callable[[str], Path],
    compiled_tiny: Callable[[str, str], Path],
) -> None:
    """The compiler's own layers say so, for both profiles."""
    folder = compiled_tiny(precision, gpu)
    manifest = read_manifest(folder)
    assert manifest.precision == precision
    assert manifest.options["layer_faults"] == ""
    assert manifest.options["state_layout"] == StateLayout.ROTATING
    quantized = [w for w in manifest.weights.values() if w.dtype != "BF16"]
    found = check(folder, quantized_tiny(precision), manifest)
    for profile in ("decode", "prefill"):
        assert found.counts(profile)[how] == len(quantized) > 10
    assert {w.is_transposed for w in quantized} == {precision == "int8-wo"}
    check_bindings(folder, manifest, open_checkpoint(quantized_tiny(precision)))


def test_the_same_input_gives_the_same_engine_and_progress_is_told(
    plan_of: Callable[[str], Path], tmp_path: Path
) -> None:
    stages: list[str] = []
    spec = BuildSpec("tensorrt", "a100", limits=LIMITS)
    build_engine(TINY_MODELS["tiny"], tmp_path / "other-name", spec, report=stages.append)
    assert any(stage.startswith("TensorRT: ") and "/" in stage for stage in stages)
    again = read_manifest(tmp_path / "other-name").model_dump()
    first = read_manifest(plan_of("tiny")).model_dump()
    folders = (tmp_path / "other-name", plan_of("tiny"))
    plans = [np.fromfile(folder / compiler.PLAN_FILE, np.uint8) for folder in folders]
    assert plans[0].size == plans[1].size
    assert int((plans[0] != plans[1]).sum()) < 200  # of 12 million, and mostly none
    kernels = [kernel_names(folder) for folder in folders]
    assert kernels[0] == kernels[1]
    for manifest in (again, first):
        assert "engine.plan" in manifest["options"]["rebuild_differs_in"]
        for name in (compiler.PLAN_FILE, LAYERS_FILE):
            del manifest["files"][name]
    assert again == first


def kernel_names(folder: Path) -> list[tuple[str, tuple[str, ...], list[str]]]:
    """Return each kernel's kind, nodes, and types, in order."""
    report = read_report(json.loads((folder / LAYERS_FILE).read_text()))
    return [
        (layer.kind, layer.nodes, [tensor.dtype for tensor in (*layer.inputs, *layer.outputs)])
        for layer in report.layers
    ]


def test_the_layers_can_be_printed(
    plan_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plan_of("tiny")
    print_layers(folder, read_manifest(folder))
    lines = capsys.readouterr().out.splitlines()
    assert sum("2 fused attention, 4 caches written in place" in line for line in lines) == 2
    assert sum(line.endswith("4 SSM states in float32") for line in lines) == 2
    assert lines[-1] == "faults: none"
    assert any(line.endswith("kernels write Float") for line in lines)
    result = CliRunner().invoke(main, ["inspect", str(folder)])
    assert "as they should be (--layers prints them)" in result.stdout
    assert "internal tensors of engine.plan" in result.stdout
    print_layers(folder, read_manifest(folder), as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["check"]["num_kernels"] == {
        word: sum(line.startswith(f"{word} ") for line in lines) for word in ("decode", "prefill")
    }


def test_a_report_that_is_not_as_it_should_be_is_told(plan_of: Callable[[str], Path]) -> None:
    """Faults put into a real report: an attention that fell apart, a copy, a foreign type."""
    folder, config = plan_of("tiny"), open_checkpoint(TINY_MODELS["tiny"]).config
    raw = json.loads((folder / LAYERS_FILE).read_text())
    stored = {"backbone.layers.1.mixer.up_proj.weight": "I8"}
    copied = "backbone.layers.4.mixer.up_proj.weight"
    for layer in list(raw["layers"]):
        if layer["profile"] == 0:
            layer["name"] = layer["name"].replace("_gemv_mha_v1", "__myl_Softmax")
        if layer["profile"] == 1 and any(item["name"] == copied for item in layer["inputs"]):
            for item in layer["inputs"]:
                item["name"] = item["name"].replace(copied, "__mye_copy")
            raw["layers"].append(
                {
                    **layer,
                    "kind": "kgen",
                    "name": "__myl_Tran",
                    "nodes": [],
                    "inputs": [{"name": copied, "shape": "", "dtype": "BFloat16"}],
                }
            )
    found = check_layers(read_report(raw), config, stored | {copied: "BF16"})
    assert set(found.faults) == {
        "decode: 0 of 2 fused attention kernels",
        "decode: backbone.layers.1.mixer.up_proj runs as bf16 x bf16 fused",
        "prefill: backbone.layers.1.mixer.up_proj runs as bf16 x bf16 fused",
        "prefill: backbone.layers.4.mixer.up_proj runs as bf16 x bf16 fused, weight copied first",
    }


def test_states_and_inputs_of_another_type_are_told(
    compiled_tiny: Callable[[str, str], Path], quantized_tiny: Callable[[str], Path]
) -> None:
    """Faults put into a real int8-sq report: a 16 bit state, a copied one, a bf16 input."""
    folder, source = compiled_tiny("int8-sq", "a10g"), quantized_tiny("int8-sq")
    manifest = read_manifest(folder)
    raw = json.loads((folder / LAYERS_FILE).read_text())
    module = "backbone.layers.1.mixer.up_proj"
    for layer in raw["layers"]:
        for item in (*layer["inputs"], *layer["outputs"]):
            if item["name"] == "ssm_out_0":
                item["dtype"] = "Half"
        if layer["profile"] == 0 and any(item["name"] == "ssm_1" for item in layer["inputs"]):
            state = next(item for item in layer["inputs"] if item["name"] == "ssm_1")
            layer["outputs"].append({**state, "name": "__mye_copy"})
        if layer["profile"] == 1 and any(x["name"] == f"{module}.weight" for x in layer["inputs"]):
            layer["inputs"][0]["dtype"] = "BFloat16"
    stored = {name: weight.dtype for name, weight in manifest.weights.items()}
    config = read_model_config(source)
    found = check_layers(read_report(raw), config, stored, manifest.precision)
    assert set(found.faults) == {
        "decode: 3 of 4 SSM states in float32",
        "prefill: 3 of 4 SSM states in float32",
        "decode: ssm_1 is copied",
        f"prefill: {module} runs as bf16 x int8 gemm",
    }


@pytest.mark.parametrize(
    ("precision", "how", "num_merged"),
    [
        pytest.param("bf16", "bf16 x bf16 ", 2, marks=pytest.mark.slow),
        ("int8-wo", "bf16 x int8 fused", 0),
    ],
)
def test_embedded_weights_are_inside(
    precision: str,
    how: str,
    num_merged: int,
    quantized_tiny: Callable[[str], Path],
    compiled_tiny: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    """In their own type; and q, k and v of the two attentions are one GEMM, in 16 bits."""
    source = TINY_MODELS["tiny"] if precision == "bf16" else quantized_tiny(precision)
    command = ["build", str(source), "--gpu", "a10g", "--embed-weights", "--max-batch-size", "4"]
    limits = ["--max-seq-len", "64", "--chunk-tokens", "16"]
    result = CliRunner().invoke(main, [*command, *limits, "-o", str(tmp_path / "e")])
    assert result.exit_code == 0, result.stderr
    manifest = read_manifest(tmp_path / "e")
    assert manifest.weights == {}
    total = sum(ref.num_bytes for ref in open_checkpoint(source).tensors.values())
    assert manifest.files[compiler.PLAN_FILE].num_bytes > total
    found = check(tmp_path / "e", source, manifest)
    assert found.faults == ()
    modules = {name.removesuffix(".weight") for name in linear_names(read_model_config(source))}
    for profile in ("decode", "prefill"):
        ways = [x.how for x in found.linears if x.linear in modules and x.profile == profile]
        assert all(way.startswith(how) for way in ways)
    assert num_merged_linears(tmp_path / "e") == num_merged
    assert num_merged_linears(compiled_tiny(precision, "a10g")) == 0


def num_merged_linears(folder: Path) -> int:
    """Count the kernels of a decode step that are several linears."""
    report = read_report(json.loads((folder / LAYERS_FILE).read_text()))
    return sum(
        sum(node.endswith("_proj") for node in layer.nodes) > 1 for layer in report.kernels(0)
    )


def test_embedding_needs_memory_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    5 kB\n")
    monkeypatch.setattr(memory, "INFO", tmp_path / "meminfo")
    spec = BuildSpec("tensorrt", "a10g", limits=LIMITS, options=TensorRTOptions(is_embedded=True))
    with pytest.raises(EnvironmentUnfitError, match=r"0\.0 GB are available; leave it out"):
        build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)


# Slices of real widths: one layer of each kind

TARGETS = [
    *((precision, "a10g") for precision in ("bf16", "int8-wo", "int8-sq")),
    *(pytest.param("int4-wo", gpu, marks=pytest.mark.slow) for gpu in ("a10g", "a100", "l4")),
    *(
        pytest.param(precision, "a100", marks=pytest.mark.slow)
        for precision in ("bf16", "int8-wo", "int8-sq")
    ),
    ("fp8", "l4"),
]
SLOW_MODEL = pytest.param("nemotron-nano-12b-v2", marks=pytest.mark.slow)
MODELS = ("nemotron-nano-9b-v2", SLOW_MODEL, "qwen3-8b")
# What the linears that a recipe quantizes run as, in both profiles.
HOW = {
    "bf16": ("bf16 x bf16",),
    "int8-wo": ("bf16 x int8 fused",),
    "int4-wo": ("bf16 x int4 fused",),
    "int8-sq": ("int8 x int8 gemm",),
    "fp8": ("fp8 x fp8 gemm",),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("precision", "gpu"), TARGETS)
def test_a_slice_of_the_real_widths_compiles(
    model: str, precision: str, gpu: str, tmp_path: Path
) -> None:
    """Fused attention, float32 states that are not copied, and the precision's own GEMMs."""
    source = write_sparse(tmp_path / "c", model, precision, is_slice=True)
    spec = BuildSpec("tensorrt", gpu, limits=Limits(8, 8192, 512))
    build_engine(source, tmp_path / "e", spec)
    manifest = read_manifest(tmp_path / "e")
    assert manifest.precision == precision
    assert manifest.options["layer_faults"] == ""
    config = open_checkpoint(source).config
    found = check(tmp_path / "e", source, manifest)
    assert found.fused_attention == {"decode": 1, "prefill": 1}
    assert found.float32_states == dict.fromkeys(("decode", "prefill"), config.num_mamba_layers)
    checkpoint = open_checkpoint(source)
    quantized = [name for name in linear_names(config) if not checkpoint[name].is_float]
    linears = quantized or linear_names(config)
    modules = {name.removesuffix(".weight") for name in linears}
    ways = [item.how for item in found.linears if item.linear in modules]
    assert len(ways) == 2 * len(modules) >= 2 * 3
    assert all(way.startswith(HOW[precision]) for way in ways)
    report = read_report(json.loads((tmp_path / "e" / LAYERS_FILE).read_text()))
    layout = StateLayout.ROTATING if config.num_mamba_layers else None
    assert manifest.options.get("state_layout") == layout
    prompt = PromptCall(spec.limits.chunk_tokens, spec.limits.max_seq_len)
    scratch = workspace_bytes(config, NumberFormat.BF16, prompt, 8, Scratch.GRAPH)
    assert 0.9 < scratch / max(report.activation_bytes) < 1.3


MORE = [(gpu, few) for gpu in ("a10g", "a100", "l4") for few in (1, 4, 7, 8)]


@pytest.mark.parametrize(
    ("model", "precision", "gpu", "num_sequences"),
    [
        ("nemotron-nano-9b-v2", "fp8", "l4", 7),
        *(
            pytest.param(model, "bf16", gpu, few, marks=pytest.mark.slow)
            for model in ("nemotron-nano-9b-v2", "qwen3-8b")
            for gpu, few in MORE
        ),
    ],
)
def test_few_sequences_of_24k_compile_too(
    model: str, precision: str, gpu: str, num_sequences: int, tmp_path: Path
) -> None:
    """The compiler alone has no decode kernel for so few: the profile takes more of them."""
    source = write_sparse(tmp_path / "c", model, precision, is_slice=True)
    spec = BuildSpec("tensorrt", gpu, limits=Limits(num_sequences, 24576, 320))
    manifest = build_engine(source, tmp_path / "e", spec)
    found = check(tmp_path / "e", source, manifest)
    assert manifest.options["layer_faults"] == "" and not found.faults
    assert found.fused_attention == {"decode": 1, "prefill": 1}
    layout = StateLayout.ROTATING if open_checkpoint(source).config.num_mamba_layers else None
    assert manifest.options.get("state_layout") == layout
    assert manifest.limits.max_batch_size == num_sequences


def test_a_cache_that_no_kernel_takes_is_refused_by_name(tmp_path: Path) -> None:
    source = write_sparse(tmp_path / "c", "nemotron-nano-9b-v2", "bf16", is_slice=True)
    spec = BuildSpec("tensorrt", "a10g", limits=Limits(2, 32768, 64))
    with pytest.raises(ChildProcessFailedError, match="give a smaller --max-seq-len") as caught:
        build_engine(source, tmp_path / "e", spec)
    assert "attention" in caught.value.message and not (tmp_path / "e").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8-wo", "int8-sq"])
def test_the_whole_9b_compiles_for_a10g(precision: str, tmp_path: Path) -> None:
    """All 56 layers, 8 sequences of 24k tokens."""
    source = write_sparse(tmp_path / "c", "nemotron-nano-9b-v2", precision)
    spec = BuildSpec("tensorrt", "a10g", limits=Limits(8, 24576 + 512, 512))
    manifest = build_engine(source, tmp_path / "e", spec)
    found = check(tmp_path / "e", source, manifest)
    assert found.faults == ()
    assert found.fused_attention == {"decode": 4, "prefill": 4}
    assert found.float32_states == {"decode": 27, "prefill": 27}
    assert manifest.options["state_layout"] == StateLayout.ROTATING
