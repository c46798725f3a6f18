"""Edge-LLM: the export, what is checked of it, and what is refused. The real exporter is slow."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.edge_llm import exporter
from nemotrt.engines.backends.edge_llm.graph_check import check_graph
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.tiny.models import TINY_MODELS
from support import edge_llm_ops, fake_quantized, reference
from support.sparse_checkpoint import write_sparse

TESTS = Path(__file__).parents[1]
PROMPT = [1, 700, 23, 1999, 4, 17, 88, 2001, 5, 9, 300, 12, 45]


def build(*arguments: object) -> Result:
    words = ["build", "--backend", "edge-llm", *map(str, arguments)]
    return CliRunner().invoke(main, words)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts the stand-in, with a fault, where the exporter is looked for."""

    def put(fault: str = "") -> None:
        folder = tmp_path / "environment"
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
        words = [sys.executable, "-m", "support.edge_llm_exporter", f"--fault='{fault}'"]
        script = folder / "bin" / exporter.COMMAND
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec {" ".join(words)} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setenv(exporter.ENVIRONMENT_VARIABLE, str(folder))

    return put


@pytest.mark.parametrize(
    ("recipe", "gpu", "kv_cache", "num_quantized"),
    [
        (None, "a10g", "fp16", 0),
        ("int8-sq", "a100", "fp16", 16),
        ("fp8", "l4", "fp8", 16),
    ],
)
def test_an_export_is_a_folder_that_the_gpu_host_goes_on_from(
    recipe: str | None,
    gpu: str,
    kv_cache: str,
    num_quantized: int,
    install: Callable[..., None],
    quantized_tiny: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    install()
    source = TINY_MODELS["tiny"] if recipe is None else quantized_tiny(recipe)
    target = tmp_path / "e"
    options = ("--max-batch-size", 4, "--max-seq-len", 2048)
    result = build(source, "--gpu", gpu, *options, "-o", target)
    assert result.exit_code == 0, result.stderr
    assert "not executed" in result.stderr
    manifest = read_manifest(target)
    assert (manifest.backend, manifest.executed) == ("edge-llm", False)
    assert manifest.tools == {"tensorrt-edgellm": "0.11.0"}
    assert manifest.options == {
        "activations": "fp16",
        "ssm_state": "fp16",
        "kv_cache": kv_cache,
        "max_input_len": 2047,
        "num_quantized_linears": num_quantized,
    }
    assert {"edge_llm/llm/model.onnx", "build_on_host.sh", "tokenizer.json"} <= set(manifest.files)
    opened = CliRunner().invoke(main, ["generate", str(target), "--prompt-ids", "1"])
    assert opened.exit_code == 3
    assert "build_on_host.sh" in opened.stderr


def test_the_script_gives_the_builder_the_limits(
    install: Callable[..., None], tmp_path: Path
) -> None:
    """Run by sh, with a builder that notes its arguments in Edge-LLM's place."""
    install()
    target, checkout = tmp_path / "e", tmp_path / "edge"
    options = ("--max-batch-size", 4, "--max-seq-len", 2048)
    assert build("tiny", "--gpu", "a10g", *options, "-o", target).exit_code == 0
    builder = checkout / "build" / "examples" / "llm" / "llm_build"
    builder.parent.mkdir(parents=True)
    builder.write_text('#!/bin/sh\nprintf "%s\\n" "$EDGELLM_PLUGIN_PATH" "$@"\n')
    builder.chmod(0o755)
    script = str(target / "build_on_host.sh")
    environment = {"PATH": os.environ["PATH"]}
    missing = subprocess.run([script], env=environment, capture_output=True, text=True)
    assert missing.returncode != 0
    assert "set it to the folder of TensorRT Edge-LLM" in missing.stderr
    environment["EDGE_LLM"] = str(checkout)
    done = subprocess.run([script, "/out"], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [
        f"{checkout}/build/libNvInfer_edgellm_plugin.so",
        *("--onnxDir", f"{target}/edge_llm/llm", "--engineDir", "/out"),
        *("--maxBatchSize", "4", "--maxInputLen", "2047", "--maxKVCacheCapacity", "2048"),
    ]


@pytest.mark.parametrize(
    ("fault", "recipe", "code", "message"),
    [
        ("crash", None, 5, "exited with 1. Its last lines:\n.*the exporter's own words"),
        ("nothing", None, 5, "wrote no graph"),
        ("no scan", None, 1, "0 causal_conv1d for 4 layers; 0 update_ssm_state for 4 layers"),
        ("other values", None, 1, r"in_proj\.weight has other values.*, and 20 more"),
        ("codes as weights", "int8-sq", 1, "is quantized, and used without its scale"),
        ("unrounded input", "int8-sq", 1, "is quantized, and used without its scale"),
        ("other scales", "int8-sq", 1, "has other scales"),
        ("other scales", "fp8", 1, "has other scales"),
        ("16-bit cache", "fp8", 1, "has not enable_fp8_kv_cache 1"),
        ("no cache scales", "fp8", 1, "has cache scales"),
    ],
)
def test_an_export_that_is_not_the_checkpoint_is_found(
    fault: str,
    recipe: str | None,
    code: int,
    message: str,
    install: Callable[..., None],
    quantized_tiny: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    import re

    install(fault)
    source = TINY_MODELS["tiny"] if recipe is None else quantized_tiny(recipe)
    result = build(source, "--gpu", "l4", "-o", tmp_path / "e")
    assert result.exit_code == code
    assert re.search(message, result.stderr, re.DOTALL), result.stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "environment"]


def test_linears_of_equal_scales_share_one_in_the_graph(
    install: Callable[..., None], quantized_tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """The real exporter was seen to keep one of them, under the first linear's name."""
    install()
    source = tmp_path / "m"
    shutil.copytree(quantized_tiny("fp8"), source)
    refs = open_checkpoint(source).tensors
    tensors = {name: np.array(ref.map()) for name, ref in refs.items()}
    scales = [name for name in tensors if name.endswith("proj.weight_scale")]
    tensors |= {name: tensors[scales[0]] for name in scales}
    save_file(tensors, source / "model.safetensors")
    result = build(source, "--gpu", "l4", "-o", tmp_path / "e")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (None, ("--gpu", "h100"), "no attention kernels .* --backend tensorrt-llm"),
        ("int8-wo", ("--gpu", "a10g"), "use int8-sq or bf16"),
        ("fp8", ("--gpu", "a100"), "no FP8 arithmetic; use a checkpoint in int8-sq or bf16"),
        ("fp8-dynamic", ("--gpu", "l4"), "static FP8 scales only; use fp8"),
        (
            None,
            ("--gpu", "a10g", "--tp-size", "2"),
            "--tp-size is for backend tensorrt-llm and tensorrt-llm-1.2, not edge-llm",
        ),
    ],
)
def test_what_edge_llm_does_not_take_is_refused_before_any_work(
    recipe: str | None,
    options: tuple[str, ...],
    message: str,
    install: Callable[..., None],
    quantized_tiny: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    import re

    install("crash")
    source = TINY_MODELS["tiny"] if recipe is None else quantized_tiny(recipe)
    result = build(source, *options, "-o", tmp_path / "e")
    assert result.exit_code == 2
    assert re.search(message, " ".join(result.stderr.split()))


def test_a_dense_model_is_sent_to_edge_llm_itself(tmp_path: Path) -> None:
    result = build("tiny-dense", "--gpu", "a10g", "-o", tmp_path / "e")
    assert (result.exit_code, "Edge-LLM's own commands" in result.stderr) == (2, True)


def test_a_missing_exporter_is_an_error_with_the_install_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(exporter.ENVIRONMENT_VARIABLE, raising=False)
    result = build("tiny", "--gpu", "a10g", "-o", tmp_path / "e")
    assert result.exit_code == 3
    assert "pip install 'tensorrt-edgellm[export]" in " ".join(result.stderr.split())
    monkeypatch.setenv(exporter.ENVIRONMENT_VARIABLE, "/no/such/folder")
    result = build("tiny", "--gpu", "a10g", "-o", tmp_path / "e")
    assert result.exit_code == 3
    assert "/no/such/folder/bin/pip install" in " ".join(result.stderr.split())


# The real exporter


@pytest.fixture(scope="module")
def real_exporter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exporter of $NEMOTRT_EDGE_LLM, or one that is installed now (gigabytes, minutes)."""
    named = os.environ.get(exporter.ENVIRONMENT_VARIABLE)
    folder = Path(named) if named else tmp_path_factory.mktemp("edge-llm") / "environment"
    if not named:
        venv.create(folder, with_pip=True)
        command = [str(folder / "bin" / "pip"), "install", "--quiet", exporter.REQUIREMENT]
        subprocess.run(command, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gpu"),
    [(None, "a10g"), ("int8-sq", "a10g"), ("int8-sq-unfolded", "a100"), ("fp8", "l4")],
)
def test_the_real_export_computes_what_transformers_does(
    name: str | None,
    gpu: str,
    real_exporter: Path,
    quantized_tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plugins in NumPy, the rest by ONNX's reference evaluator; the FP8 cache is not modelled.

    In float32, where the exporter's float16 tips no value over to another 8 bit step.
    """
    monkeypatch.setenv(exporter.ENVIRONMENT_VARIABLE, str(real_exporter))
    tiny = TINY_MODELS["tiny"]
    source = tiny if name is None else quantized_tiny(name)
    target = tmp_path / "e"
    result = build(source, "--gpu", gpu, "--max-seq-len", 512, "-o", target)
    assert result.exit_code == 0, result.stderr
    folder = target / "edge_llm" / "llm"
    found = edge_llm_ops.logits(folder, PROMPT, is_float32=True)
    if name is None:
        model = reference.from_folder(tiny)
        halves = edge_llm_ops.logits(folder, PROMPT)
        assert np.linalg.norm(halves - found) < 2e-3 * np.linalg.norm(found)
    else:
        model = fake_quantized.load(tiny, _with_float16_scales(source, tmp_path / "m"))
    expected = reference.logits(model, PROMPT)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    exported = json.loads((target / "edge_llm" / "llm" / "config.json").read_text())
    assert exported["recurrent_state_dtype"] == "fp16"
    assert exported["use_rope"] is False


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8-sq"])
def test_a_slice_of_the_9b_s_widths_exports(
    precision: str, real_exporter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer of each kind at hidden 4480, 128 heads of 80, MLP 15680, attention 40 over 8."""
    monkeypatch.setenv(exporter.ENVIRONMENT_VARIABLE, str(real_exporter))
    source = write_sparse(tmp_path / "m", "nemotron-nano-9b-v2", precision, is_slice=True)
    for pattern in ("token*", "chat_template*"):  # the exporter asks for both
        for path in TINY_MODELS["tiny"].glob(pattern):
            shutil.copyfile(path, source / path.name)
    options = ("--max-batch-size", 4, "--max-seq-len", 4096)
    result = build(source, "--gpu", "a10g", *options, "-o", tmp_path / "e")
    assert result.exit_code == 0, result.stderr
    num_quantized = 0 if precision == "bf16" else 4
    assert read_manifest(tmp_path / "e").options["num_quantized_linears"] == num_quantized
    shutil.rmtree(tmp_path / "e")


def _with_float16_scales(source: Path, target: Path) -> Path:
    """Copy a checkpoint; FP8's scales are rounded to float16, as the exporter does."""
    shutil.copytree(source, target)
    tensors = {name: np.array(ref.map()) for name, ref in open_checkpoint(source).tensors.items()}
    if open_checkpoint(source).quant.precision is Precision.FP8:
        for name in tensors:
            if name.endswith(("weight_scale", "input_scale")):
                tensors[name] = tensors[name].astype(np.float16).astype(np.float32)
    save_file(tensors, target / "model.safetensors")
    return target


@pytest.mark.slow
def test_the_real_exporter_takes_int8_codes_for_weights(
    real_exporter: Path, quantized_tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """Why int8-wo is refused: the export succeeds, and only our check sees that it is wrong."""
    source = quantized_tiny("int8-wo")
    program = real_exporter / "bin" / exporter.COMMAND
    folder = exporter.export(program, source, tmp_path / "o")
    with pytest.raises(Exception, match="used without its scale"):
        check_graph(folder, open_checkpoint(source))
    shutil.rmtree(folder)
