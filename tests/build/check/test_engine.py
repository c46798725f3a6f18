"""`nemotrt check ENGINE` and `nemotrt check`: engines of the CPU, and a plan over the stand-ins."""

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.build.check import machine
from nemotrt.build.check.engine import check, reference, script
from nemotrt.build.check.engine.check import check_engine
from nemotrt.build.engine_builder import BuildSpec, build_engine, model_summary
from nemotrt.cli import main
from nemotrt.engines.artefact.executed import read_executed
from nemotrt.engines.artefact.manifest import (
    CheckpointEntry,
    LimitsEntry,
    Manifest,
    read_manifest,
    verify_files,
    write_manifest,
)
from nemotrt.engines.backends.protocol.local_gpu import LocalGpu
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import (
    ConfigError,
    EnvironmentUnfitError,
)
from nemotrt.profiles.hardware.gpu_profile import known_gpus, load_gpu
from support import cuda_stand_in
from support import tensorrt_stand_in as stand_in
from support.weight_inputs import weight_inputs

LIMITS = Limits(max_batch_size=3, max_seq_len=64, chunk_tokens=16)


def test_an_engine_that_computes_right(engine: Path) -> None:
    ran = CliRunner().invoke(main, ["check", str(engine), "--json", "-o", "page.html"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)["engines"][0]
    backend = read_manifest(engine).backend
    other = {"native": "onnxruntime", "onnxruntime": "native"}[backend]
    assert found["reference"] == f"backend {other} on the same checkpoint"
    assert 0 < found["comparison"]["error"] <= found["comparison"]["bound"] == 1e-4
    assert found["decode_tokens_per_s"] > 0 and found["decode_sequences"] == 3
    assert "Computed right here" in Path("page.html").read_text()

    manifest = read_manifest(engine)
    verify_files(engine, manifest)
    executed = read_executed(engine, manifest)
    assert executed is not None and executed.device == "CPU" and executed.driver is None
    assert executed.largest_error == found["comparison"]["error"]
    shown = CliRunner().invoke(main, ["inspect", str(engine)]).stdout
    assert f"largest error {executed.largest_error:.2g}" in shown and "verified" in shown
    assert re.search(rf"^executed with +.*numpy {re.escape(np.__version__)}", shown, re.MULTILINE)
    told = json.loads(CliRunner().invoke(main, ["inspect", str(engine), "--json"]).stdout)
    assert told["executed_on"] == executed.model_dump(mode="json")
    assert CliRunner().invoke(main, ["check", str(engine)]).exit_code == 0


def test_another_engine_s_record_says_nothing(engine: Path) -> None:
    assert CliRunner().invoke(main, ["check", str(engine)]).exit_code == 0
    manifest = read_manifest(engine)
    changed = manifest.model_copy(update={"tools": {"native": "another"}})
    assert read_executed(engine, manifest) is not None
    assert read_executed(engine, changed) is None


def test_layer_by_layer_is_told(engine: Path) -> None:
    ran = CliRunner().invoke(main, ["check", str(engine), "--layers"])
    assert ran.exit_code == 0, ran.output
    assert "against    the checkpoint layer by layer, in float32" in ran.stdout


def test_without_memory_it_goes_by_layers(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "available_mib", lambda: 1)
    assert check_engine(engine).reference == reference.BY_LAYERS


class Wrong:
    """An engine whose logits are changed after so many steps."""

    def __init__(self, inner: Any, change: Callable[[np.ndarray], np.ndarray], after: int) -> None:
        self._inner, self._change, self._left = inner, change, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def step(self, feeds: list[Feed]) -> np.ndarray:
        rows: np.ndarray = self._inner.step(feeds)
        self._left -= 1
        return rows if self._left >= 0 else self._change(rows)


@pytest.mark.parametrize(
    "change",
    [lambda rows: rows * 1.001, lambda rows: rows[::-1], lambda rows: rows * np.nan],
    ids=["a scale", "rows of others", "no number"],
)
def test_an_engine_that_computes_wrong(
    change: Callable[[np.ndarray], np.ndarray],
    engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_wrong(folder: Path, *options: Any) -> OpenEngine:
        opened = open_engine(folder, *options)
        wrong: Any = Wrong(opened.engine, change, after=5)
        return OpenEngine(opened.manifest, wrong, None, None, ())

    monkeypatch.setattr(check, "open_engine", open_wrong)
    ran = CliRunner().invoke(main, ["check", str(engine)])
    assert ran.exit_code == 1
    assert "compare: logits of sequence" in ran.stderr
    assert f"Please send {tmp_path / 'nemotrt-check.json'}" in ran.stderr
    json.loads((tmp_path / "nemotrt-check.json").read_text(), parse_constant=pytest.fail)
    assert read_executed(engine, read_manifest(engine)) is None


def test_a_failing_step_names_its_stage(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ConfigError("a step's fault.")

    monkeypatch.setattr(check, "run", fail)
    ran = CliRunner().invoke(main, ["check", str(engine)])
    assert ran.exit_code == 1 and "step: a step's fault." in ran.stderr


def test_a_damaged_engine_and_a_lost_checkpoint_are_not_opened(engine: Path) -> None:
    manifest = read_manifest(engine)
    entry = manifest.checkpoint.model_copy(update={"path": "/nowhere"})
    write_manifest(engine, manifest.model_copy(update={"checkpoint": entry}))
    ran = CliRunner().invoke(main, ["check", str(engine)])
    assert ran.exit_code == 2
    assert "open: /nowhere, which holds the engine's weights, is missing" in ran.stderr
    write_manifest(engine, manifest)
    (engine / "config.json").write_text("{}")
    ran = CliRunner().invoke(main, ["check", str(engine)])
    assert ran.exit_code == 2 and "open: " in ran.stderr and "has changed" in ran.stderr
    ran = CliRunner().invoke(main, ["check", "/nowhere"])
    assert ran.exit_code == 2 and "is not an engine directory" in ran.stderr


def test_a_plan_without_its_gpu_is_lacking(engine: Path) -> None:
    manifest = read_manifest(engine)
    plan = manifest.model_copy(
        update={"backend": "tensorrt", "gpu": "a10g", "compute_capability": "8.6"}
    )
    write_manifest(engine, plan)
    ran = CliRunner().invoke(main, ["check", str(engine)])
    assert ran.exit_code == 3
    assert "open: " in ran.stderr and "this machine has no NVIDIA GPU" in ran.stderr


@given(
    st.builds(
        Limits,
        max_batch_size=st.integers(1, 9),
        max_seq_len=st.integers(40, 2000),
        chunk_tokens=st.integers(1, 40),
    )
    | st.integers(1, 30).map(lambda n: Limits(1, n, n))
)
def test_the_script_keeps_the_limits(limits: Limits) -> None:
    """Every token of every sequence is fed once; no more are alive than slots are there."""

    class Counting:
        vocab_size = 5

        def __init__(self) -> None:
            self.limits = limits
            self.held: dict[int, int] = {}

        def allocate(self) -> int:
            slot = min(set(range(limits.max_batch_size)) - set(self.held))
            self.held[slot] = 0
            return slot

        def release(self, slot: int) -> None:
            del self.held[slot]

        def step(self, feeds: list[Feed]) -> np.ndarray:
            for feed in feeds:
                assert 1 <= len(feed.tokens) <= limits.chunk_tokens
                assert all(0 <= token < 5 for token in feed.tokens)
                self.held[feed.slot] += len(feed.tokens)
                assert self.held[feed.slot] <= limits.max_seq_len
            return np.zeros((len(feeds), 5), np.float32)

    counting: Any = Counting()
    wanted = script.sequences(counting)
    found = script.run(counting, wanted)
    assert not counting.held and len(wanted) == script.num_at_once(limits) + 1
    for number, sequence in enumerate(wanted):
        ends = [count for one, count in found if one == number]
        assert max(ends) == len(sequence.tokens)
        assert len(ends) == len(list(sequence.pieces(limits.chunk_tokens)))


def test_check_alone_checks_every_cpu_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "THIS_MACHINE", "no such machine")  # measuring takes seconds
    ran = CliRunner().invoke(main, ["check", "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert {each["backend"] for each in found["engines"]} == {"native", "onnxruntime"}
    assert all(each["comparison"]["is_right"] for each in found["engines"])
    assert found["kernels"] is None and found["gpu"]["facts"] is None
    assert all("No prediction" in each["note"] for each in found["predicted"])
    assert not list(tmp_path.iterdir())


def test_layers_is_for_an_engine() -> None:
    ran = CliRunner().invoke(main, ["check", "--layers"])
    assert (
        ran.exit_code == 2 and "--layers, --checkpoint and --verify are for an ENGINE" in ran.stderr
    )


def plan_on_stand_ins(folder: Path, limits: Limits) -> Callable[..., OpenEngine]:
    """Write a plan's engine directory for the tiny model; return what opens it on the stand-ins."""
    source = TINY_MODELS["tiny"]
    folder.mkdir()
    checkpoint = open_checkpoint(source)
    bound = graph_export.export(checkpoint, folder, limits, Precision.BF16, is_embedded=False)
    (folder / compiler.PLAN_FILE).touch()
    shutil.copyfile(source / "config.json", folder / "config.json")
    manifest = Manifest(
        backend="tensorrt",
        gpu="a10g",
        compute_capability="8.6",
        precision=Precision.BF16,
        executed=False,
        limits=LimitsEntry(**dataclasses.asdict(limits)),
        model=model_summary(checkpoint.config),
        checkpoint=CheckpointEntry(path=str(source), fingerprint=checkpoint.fingerprint()),
        weights=weight_inputs(checkpoint, bound),
        tools={"tensorrt-rtx": "1"},
        options={},
        files={},
    )
    write_manifest(folder, manifest)

    def open_plan(target: Path, *options: Any) -> OpenEngine:
        if target != folder:
            return open_engine(target, *options)
        verify_files(folder, manifest := read_manifest(folder))
        api = cuda_stand_in.Cuda()
        trt = stand_in.RtxTensorRT(api, folder / GRAPH_FILE, limits, compiler.profiles(limits))
        engine = TensorRTEngine(trt, Cuda(api), folder, manifest, None)
        return OpenEngine(manifest, engine, None, None, ())

    return open_plan


def test_a_plan_over_the_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command for a GPU's engine: CUDA names the GPU, and the record has it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "plan"
    monkeypatch.setattr(check, "open_engine", plan_on_stand_ins(folder, LIMITS))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda_stand_in.Cuda())
    ran = CliRunner().invoke(main, ["check", str(folder), "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    comparison = found["engines"][0]["comparison"]
    assert 1e-6 < comparison["error"] < 1e-2 < comparison["bound"] < 4e-2
    assert found["engines"][0]["reference"] == "backend native on the same checkpoint"
    executed = read_executed(folder, read_manifest(folder))
    assert executed is not None and executed.device == "A10G"
    assert "on A10G" in CliRunner().invoke(main, ["inspect", str(folder)]).stdout


def test_check_alone_with_a_gpu_names_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No TensorRT and no cuda-python: both are named, and nothing passes."""

    def refuse(*_: Any) -> Any:
        raise EnvironmentUnfitError("compiling for this host's own GPU needs TensorRT.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "local_gpu", lambda: LocalGpu("8.6", "NVIDIA A10G"))
    monkeypatch.setattr(machine, "build_engine", refuse)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    ran = CliRunner().invoke(main, ["check", "-o", "page.html"])
    assert ran.exit_code == 3
    assert "build: compiling for this host's own GPU needs TensorRT." in ran.stderr
    assert "cuda-python: it is not installed. Install it: pip install" in ran.stderr
    assert "lacks something" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("capability", "product_name", "known"),
    [
        ("8.6", "NVIDIA A10G", "a10g"),
        ("8.6", "NVIDIA A10", "a10"),
        ("8.6", "NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("8.6", "NVIDIA RTX A6000", "a10g"),  # of the same capability, and fitted
        ("9.0", "NVIDIA H100 NVL", "h100"),
        ("8.0", "NVIDIA A100-SXM4-80GB", "a100"),
        ("8.0", "NVIDIA A100 80GB PCIe", "a100-80-pcie"),
        ("9.0", "NVIDIA H100 80GB HBM3", "h100"),
        ("9.0", "NVIDIA H200", "h200"),
        ("12.1", "NVIDIA GB10", "gb10"),
        ("10.3", "NVIDIA B300", None),
    ],
)
def test_the_gpu_that_is_here_is_known_by_its_name(
    capability: str, product_name: str, known: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "local_gpu", lambda: LocalGpu(capability, product_name))
    assert machine.gpu_here() == known


def test_no_two_gpus_have_one_product_name() -> None:
    gpus = [load_gpu(name) for name in known_gpus()]
    names = [name for gpu in gpus for name in gpu.product_names]
    assert len(set(names)) == len(names) >= len(gpus)


def test_check_alone_passes_over_no_gpu_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that no table knows: plans are for known ones, its kernels are asked all the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "THIS_MACHINE", "no such machine")
    monkeypatch.setattr(machine, "local_gpu", lambda: LocalGpu("12.9", "NVIDIA of tomorrow"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    ran = CliRunner().invoke(main, ["check", "--json"])
    found = json.loads(ran.stdout)
    assert ran.exit_code == 3 and found["kernels"] is not None
    assert {each["gpu"] for each in found["engines"]} == {None}


def test_stored_codes_are_exact_and_own_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quantized engine is held against the checkpoint's own codes, layer by layer."""
    monkeypatch.chdir(tmp_path)
    asked = ["quantize", "tiny", "--recipe", "int8-wo", "-o", "q", "--quiet"]
    assert CliRunner().invoke(main, asked).exit_code == 0
    errors = {}
    cases = [("native", Path("q")), ("onnxruntime", Path("q")), ("native", TINY_MODELS["tiny"])]
    for number, (backend, source) in enumerate(cases):
        target = tmp_path / f"e{number}"
        build_engine(source, target, BuildSpec(backend, None, Precision.INT8_WO, LIMITS))
        found = check_engine(target)
        assert not found.faults and found.reference == reference.BY_LAYERS
        assert found.comparison is not None
        errors[number] = found.comparison.error
    assert errors[0] < 2e-3 < min(errors[1], errors[2])
