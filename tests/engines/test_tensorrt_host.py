"""The flavour for a GPU host, H100 above all: ordinary TensorRT, for the GPU that is there."""

import json
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.tensorrt.compile import compiler, flavour
from nemotrt.engines.backends.tensorrt.compile.layer_check import (
    LAYERS_FILE,
    UNREADABLE,
    check_layers,
)
from nemotrt.engines.backends.tensorrt.compile.layer_report import LayerReport, read_report
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import EnvironmentUnfitError
from support import host_tensorrt


@pytest.fixture
def h100_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that this machine has an H100, and give it the stand-in for `tensorrt`."""
    folder = tmp_path / "packages"
    folder.mkdir()
    host_tensorrt.write_package(folder)
    monkeypatch.setattr(flavour, "local_compute_capability", lambda: "9.0")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_an_h100_host_compiles_for_itself(
    quantized_tiny: Callable[[str], Path],
    compiled_tiny: Callable[[str, str], Path],
    h100_host: Path,
    tmp_path: Path,
) -> None:
    """The same command, from the very ONNX file that was compiled ahead of time for the L4."""
    command = ["build", str(quantized_tiny("fp8")), "--gpu", "h100", "-o", str(tmp_path / "e")]
    limits = ["--max-batch-size", "4", "--max-seq-len", "64", "--chunk-tokens", "16"]
    result = CliRunner().invoke(main, [*command, *limits])
    assert result.exit_code == 0, result.stderr
    manifest = read_manifest(tmp_path / "e")
    assert (manifest.compute_capability, manifest.precision) == ("9.0", Precision.FP8)
    assert manifest.tools["tensorrt"] == host_tensorrt.VERSION
    assert "tensorrt-rtx" not in manifest.tools and manifest.executed is False
    assert manifest.options["layer_faults"] == ""
    ahead = read_manifest(compiled_tiny("fp8", "l4"))
    for name in ("model.onnx", "model.onnx.data"):
        assert manifest.files[name] == ahead.files[name]
    assert manifest.weights == ahead.weights
    report = read_report(json.loads((tmp_path / "e" / LAYERS_FILE).read_text()))
    assert len(report.activation_bytes) == 2
    assert (tmp_path / "cache" / "nemotrt" / f"timing-tensorrt-{host_tensorrt.VERSION}").is_file()


def test_a_tensorrt_without_the_layers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_tensorrt.write_package(tmp_path, "10.13.0.35")
    monkeypatch.setattr(flavour, "local_compute_capability", lambda: "9.0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentUnfitError, match=r"10\.13\.0\.35 .* 10\.15 or later: pip inst"):
        flavour.choose("9.0")


def test_layers_in_unknown_words_are_no_fault_of_the_plan(
    compiled_tiny: Callable[[str, str], Path],
) -> None:
    report = compiler._report(["Name: a layer of tomorrow"], [1, 2])
    assert report == LayerReport((), (1, 2))
    found = check_layers(report, read_model_config(compiled_tiny("bf16", "a100")))
    assert found.faults == (UNREADABLE,)


@pytest.mark.parametrize(
    ("visible", "found"),
    [(None, "8.6"), ("1", "9.0"), ("1,0", "9.0"), ("GPU-b", "9.0"), ("", None), ("-1", None)],
)
def test_the_gpu_is_the_one_that_cuda_sees(
    visible: str | None, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with an A10G and an H100."""
    gpus = {0: (8, 6), 1: (9, 0), "GPU-b": (9, 0)}
    for name, value in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetHandleByIndex": gpus.__getitem__,
        "nvmlDeviceGetHandleByUUID": gpus.__getitem__,
        "nvmlDeviceGetCudaComputeCapability": lambda handle: handle,
    }.items():
        monkeypatch.setattr(pynvml, name, value)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert flavour.local_compute_capability() == found
