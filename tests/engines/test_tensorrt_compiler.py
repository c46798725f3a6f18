"""What the TensorRT backend refuses, and how its compiler's process behaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from nemotrt import needs
from nemotrt.build import support_table
from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import Target
from nemotrt.engines.backends.tensorrt.compile import compiler, flavour
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import (
    ArtefactError,
    ChildProcessFailedError,
    ConfigError,
    EnvironmentUnfitError,
)
from support.sparse_checkpoint import write_sparse

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)

# Refusals


@pytest.mark.parametrize(
    ("capability", "precision", "error", "message"),
    [
        ("8.6", Precision.FP8, ConfigError, r"8\.6 has no FP8 .* int8-sq, int8-wo or bf16"),
        ("8.0", Precision.FP8_DYNAMIC, ConfigError, "no FP8"),
        ("10.0", Precision.FP8_DYNAMIC, ConfigError, "does not build fp8-dynamic"),
        ("8.6", Precision.FP32, ConfigError, "does not build fp32"),
        ("9.0", Precision.BF16, EnvironmentUnfitError, r"nemotrt\[tensorrt\]"),
        ("10.0", Precision.FP8, EnvironmentUnfitError, r"nemotrt\[tensorrt\]"),
    ],
)
def test_what_can_not_be_built_is_refused_by_name(
    capability: str, precision: Precision, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check("tensorrt", open_checkpoint(TINY_MODELS["tiny"]), capability, precision)


def test_a_missing_compiler_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavour, "RTX_MODULE", "no_such_module")
    with pytest.raises(EnvironmentUnfitError, match=r"pip install 'nemotrt\[rtx\]'"):
        flavour.choose("8.6")


def test_the_host_s_own_gpu_takes_ordinary_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavour, "local_compute_capability", lambda: "9.0")
    monkeypatch.setattr(flavour, "HOST_MODULE", "no_such_module")
    with pytest.raises(EnvironmentUnfitError, match=r"pip install 'nemotrt\[tensorrt\]'"):
        flavour.choose("9.0")
    monkeypatch.setattr(flavour, "HOST_MODULE", "json")
    monkeypatch.setattr(needs, "version", lambda package: "10.15.1.29")
    assert flavour.choose("9.0").name == "tensorrt"
    assert flavour.choose("8.6").name == "tensorrt-rtx"
    monkeypatch.setattr(flavour, "local_compute_capability", lambda: "8.6")
    assert flavour.choose("8.6").name == "tensorrt"
    with pytest.raises(EnvironmentUnfitError, match=r"10\.16 or later: .*'tensorrt>=10\.16'\.$"):
        flavour.choose("8.6", has_plugins=True)
    for version in ("10.9.0.34", "12.0.0.1"):  # too old for the graph; read by nobody
        monkeypatch.setattr(needs, "version", lambda package, found=version: found)
        assert flavour.choose("8.6").name == "tensorrt-rtx"
    with pytest.raises(EnvironmentUnfitError, match="newer than what was read; take one before 12"):
        flavour.choose("8.6", has_plugins=True)


@pytest.mark.parametrize("precision", [Precision.INT8_WO, Precision.INT8_SQ])
def test_a_float_checkpoint_is_not_built_as_int8(precision: Precision, tmp_path: Path) -> None:
    spec = BuildSpec("tensorrt", "a10g", precision, LIMITS)
    with pytest.raises(ConfigError, match=f"nemotrt quantize .* --recipe {precision}"):
        build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)
    assert list(tmp_path.iterdir()) == []


def test_a_static_scale_that_is_not_positive_is_named(
    quantized_tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(quantized_tiny("int8-sq"))
    name = next(name for name in checkpoint.tensors if name.endswith("input_scale"))
    ref = checkpoint[name]
    copy = tmp_path / "c"
    copy.mkdir()
    for path in checkpoint.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    with (copy / ref.path.name).open("r+b") as file:
        file.seek(ref.offset)
        file.write(np.float32(-1).tobytes())
    with pytest.raises(ArtefactError, match=f"{name} must be one positive value"):
        graph_export.export(open_checkpoint(copy), tmp_path, LIMITS, Precision.INT8_SQ)


def test_the_list_says_what_the_checks_say(quantized_tiny: Callable[[str], Path]) -> None:
    """Each row of `build --list` against the checks that a build makes."""
    result = CliRunner().invoke(main, ["build", "--list"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    groups = {(row["compute_capability"], row["precision"]) for row in support_table.rows()}
    assert lines.index("") == len(groups) + 1
    assert any(line.startswith("a10, a10g, ") and "int8-sq" in line for line in lines)
    assert "cpu, onnxruntime: fp32, bf16, int8-wo, int4-wo: run and tested here" in lines
    checked = {word for row in support_table.rows() for word in row.values() if ", not " in word}
    assert all(any(line.startswith(f"{word}: ") for line in lines) for word in checked)
    assert support_table.row("a10g", Precision.INT8_SQ)["tensorrt"] == "compiled, not executed"
    assert "on its host" in support_table.row("h100", Precision.FP8)["tensorrt"]
    checkpoint = open_checkpoint(quantized_tiny("int8-wo"))
    for row in support_table.rows():
        choice = (row["compute_capability"], Precision(row["precision"]))
        is_built = not row["tensorrt"].startswith("no:")
        is_served = not row["tensorrt-llm"].startswith("no")
        assert is_built == _passes("tensorrt", checkpoint, *choice)
        assert is_served == _passes("tensorrt-llm", checkpoint, *choice)


def check(backend: str, checkpoint: Checkpoint, capability: str, precision: Precision) -> None:
    found = registry.find(backend)
    found.check(Target(checkpoint, precision, None, None, capability, found.options_type()))


def _passes(backend: str, *arguments: Any) -> bool:
    """Whether a check refuses nothing but the place to compile."""
    try:
        check(backend, *arguments)
    except EnvironmentUnfitError:
        return True
    except ConfigError:
        return False
    return True


# The compiler's process


def test_a_refusal_is_in_the_compiler_s_own_words(
    quantized_tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """FP8 aimed at a GPU without it, past our own check: TensorRT names the type, not the node."""
    graph_export.export(open_checkpoint(quantized_tiny("fp8")), tmp_path, LIMITS, Precision.FP8)
    with pytest.raises(ChildProcessFailedError, match=r"TensorRT can't compile the graph") as error:
        compiler.compile_plan(tmp_path, LIMITS, "8.6")
    assert "at node backbone.layers.0.mixer.in_proj.values (" in error.value.message
    assert "the model contains HW-specific datatypes: fp8_e4m3" in error.value.message
    assert "no arithmetic of that type" in error.value.message
    assert error.value.exit_code == 5
    assert not (tmp_path / compiler.PLAN_FILE).exists()


def cache_in_int8(graph: onnx.GraphProto) -> None:
    for value in [*graph.input, *graph.output]:
        if "_cache_" in value.name:
            value.type.tensor_type.elem_type = onnx.TensorProto.INT8


def narrow_query(graph: onnx.GraphProto) -> None:
    weight = next(value for value in graph.input if value.name.endswith("q_proj.weight"))
    weight.type.tensor_type.shape.dim[1].dim_value = 17


def soft_cap(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.op_type == "Attention")
    node.attribute.append(onnx.helper.make_attribute("softcap", 5.0))


@pytest.mark.parametrize(
    ("edit", "node", "words"),
    [
        (cache_in_int8, "k_cache_out_0", "cache has type Int8 but must have type Float, Half"),
        (narrow_query, "model.layers.0.self_attn.q_proj", "second to last dimension of input1"),
        (soft_cap, "model.layers.0.self_attn.attention", "Setting softcap is not supported"),
    ],
)
def test_a_refused_node_is_named_and_nothing_is_left(
    edit: Callable[[onnx.GraphProto], None],
    node: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write_sparse(tmp_path / "c", "qwen3-8b", "bf16", is_slice=True)
    original = graph_export.export

    def export(checkpoint: Checkpoint, folder: Path, *rest: Any, **options: Any) -> Any:
        bound = original(checkpoint, folder, *rest, **options)
        model = onnx.load(str(folder / GRAPH_FILE), load_external_data=False)
        edit(model.graph)
        onnx.save(model, str(folder / GRAPH_FILE))
        return bound

    monkeypatch.setattr(graph_export, "export", export)
    command = ["build", str(source), "--gpu", "a10g", "--max-batch-size", "4"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "e")])
    assert result.exit_code == 5
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert f"can't compile the graph, at node {node}: " in result.stderr
    assert words in result.stderr
    assert ".cpp" not in result.stderr and "driver" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_compiler_that_dies_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import os, sys\nsys.stdin.read()\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setattr(compiler, "SCRIPT", script)
    spec = BuildSpec("tensorrt", "a10g", limits=LIMITS)
    with pytest.raises(ChildProcessFailedError, match=r"by signal 9 \(the system's memory"):
        build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)
    assert list(tmp_path.iterdir()) == [script]


def test_an_interrupted_compilation_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "waits.py"
    event = {"phase": "Waiting", "step": 1, "num_steps": 9}
    script.write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        f"print({json.dumps(event)!r}, flush=True)\ntime.sleep(60)\n"
    )
    monkeypatch.setattr(compiler, "SCRIPT", script)

    def interrupt(stage: str) -> None:
        assert stage == "TensorRT: waiting 1/9"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiler.compile_plan(tmp_path, LIMITS, "8.6", report=interrupt)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_cost_and_timing_cache_come_from_the_compiler(tmp_path: Path) -> None:
    source = write_sparse(tmp_path / "c", "qwen3-8b", "bf16", is_slice=True)
    graph_export.export(open_checkpoint(source), tmp_path, LIMITS, Precision.BF16)
    cache = tmp_path / "timing"
    found = compiler.compile_plan(tmp_path, LIMITS, "8.6", workspace_bytes=1 << 30, cache=cache)
    assert 50 << 20 < found.peak_bytes < 4 << 30
    assert found.seconds > 0
    assert len(found.report.activation_bytes) == 2
    assert (tmp_path / "timing").is_file()


def test_only_the_host_s_own_compiler_keeps_timings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rtx, host = flavour.flavours()
    assert compiler.timing_cache(rtx) is None
    monkeypatch.setattr(needs, "version", lambda package: "10.15.1")
    found = compiler.timing_cache(host)
    assert found == tmp_path / "nemotrt" / "timing-tensorrt-10.15.1"


def test_digests_are_those_of_the_bytes_and_stop_when_told() -> None:
    import hashlib
    from threading import Event

    from nemotrt.engines.checkpoint.stored.tensor_digest import tensor_digests

    refs = list(open_checkpoint(TINY_MODELS["tiny"]).tensors.values())
    expected = [hashlib.sha256(ref.read(0, ref.num_bytes)).hexdigest() for ref in refs]
    assert tensor_digests(refs) == expected
    stop = Event()
    stop.set()
    assert tensor_digests(refs[:1], stop) == [hashlib.sha256().hexdigest()]
