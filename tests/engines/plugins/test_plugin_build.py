"""`nemotrt build --mamba plugin`: what it refuses, and a build on a GPU host's stand-in."""

import os
import stat
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.tensorrt.compile import flavour
from nemotrt.engines.backends.tensorrt.device import kernel_image, kernel_library
from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_image import KERNELS_FILE
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.backends.tensorrt.graph.plugin_emitter import MambaPluginEmitter
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import PluginFields
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.tiny.models import TINY_MODELS
from support import host_tensorrt

LIMITS = ["--max-batch-size", "4", "--max-seq-len", "64", "--chunk-tokens", "16"]
# What the stand-in for ordinary TensorRT needs beside: a parser that makes plugins of our nodes,
# through the registry, and reads their bodies in place of the network that would take the plugins.
PLUGIN_LAYER = """
    globals().update({name: x for name, x in vars(_rtx).items() if name not in globals()})


    class PreviewFeature:
        ALIASED_PLUGIN_IO_10_03 = "aliased"


    class OnnxParser:
        def __init__(self, network, logger):
            self.real = _rtx.OnnxParser(network, logger)
            self.num_errors = 0

        def parse_from_file(self, path):
            raise AssertionError("with plugins the graph is given without bodies")

        def parse(self, model, path):
            import onnx

            read = onnx.load_model_from_string(model)
            assert not read.functions
            for node in read.graph.node:
                if node.domain == "nemotrt":
                    _create(node)
            registry = _rtx.get_plugin_registry()
            for name in ("CausalConv", "SsdScan"):  # else the real parser would take them
                assert registry.deregister_creator(registry.get_creator(name, "1", "nemotrt"))
            with open(path, "rb") as file:
                return self.real.parse(file.read(), path)


    def _create(node):
        import numpy as np
        from onnx import helper

        values = {x.name: helper.get_attribute_value(x) for x in node.attribute}
        creator = _rtx.get_plugin_registry().get_creator(
            node.op_type, values["plugin_version"].decode(), values["plugin_namespace"].decode()
        )
        kept = []
        for known in creator.field_names:
            value = values[known.name]
            kinds = {bytes: np.int8, int: np.int32, float: np.float32}
            data = np.frombuffer(value, np.int8) if isinstance(value, bytes) else np.array(
                [value], kinds[type(value)]
            )
            kept.append(_rtx.PluginField(known.name, data, known.type))
        fields = _rtx.PluginFieldCollection_(_rtx.PluginFieldCollection(kept))
        plugin = creator.create_plugin(node.name, fields, _rtx.TensorRTPhase.BUILD)
        _seen.setdefault("plugins", []).append(plugin)


    class _PluginConfig(_Config):
        def set_preview_feature(self, feature, enable):
            assert feature == "aliased" and enable
            _seen["aliased"] = True


    class _PluginBuilder(Builder):
        def create_builder_config(self):
            return _PluginConfig(self.real.create_builder_config())

        def build_serialized_network(self, network, config):
            assert _seen["aliased"] and _seen["plugins"]
            return super().build_serialized_network(network, config)


    Builder = _PluginBuilder
"""
REST = "globals().update({name: x for name, x in vars(_rtx).items() if name not in globals()})"


def build(folder: Path, *arguments: str, model: str = "tiny") -> Result:
    command = ["build", model, "--mamba", "plugin", "-o", str(folder / "e"), *LIMITS, *arguments]
    return CliRunner().invoke(main, command)


@pytest.fixture
def gpu_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that this machine has an H100, ordinary TensorRT, cuda-python and nvcc."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setattr(
        host_tensorrt,
        "MODULE",
        textwrap.dedent(host_tensorrt.MODULE) + textwrap.dedent(PLUGIN_LAYER),
    )
    host_tensorrt.write_package(folder)
    nvcc = folder / "nvcc"
    nvcc.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > "$last"\n')
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("CUDACXX", str(nvcc))
    monkeypatch.setattr(kernel_library, "MODULE", "json")  # a module that is there
    monkeypatch.setattr(flavour, "local_compute_capability", lambda: "9.0")
    monkeypatch.setattr(
        "nemotrt.engines.backends.tensorrt.backend.local_compute_capability", lambda: "9.0"
    )
    monkeypatch.syspath_prepend(folder)
    root = Path(kernel_image.__file__).parents[5]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_build_on_the_gpu_s_host(gpu_host: Path, tmp_path: Path) -> None:
    """Kernels, graph, the compiler's process with our plugins registered, manifest."""
    result = build(tmp_path, "--gpu", "h100")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "e")
    mamba = open_checkpoint(TINY_MODELS["tiny"]).config.mamba
    assert mamba
    dims = KernelDims.of(mamba)
    assert manifest.options["mamba"] == "plugin"
    assert manifest.options["mamba_kernels"] == dims.key
    assert manifest.options["mamba_compiler"] == "nvcc"
    assert manifest.executed is False and "tensorrt" in manifest.tools
    command = (tmp_path / "e" / KERNELS_FILE).read_text().split()
    assert KERNELS_FILE in manifest.files
    targets = [x for x in command if x.startswith("-gencode")]
    assert targets == [f"-gencode=arch=compute_{n},code=sm_{n}" for n in (80, 86, 90)]
    assert set(dims.defines) <= set(command)


def test_what_a_plugin_raises_is_shown(
    gpu_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node without a field, read by the real parser: our words are on the process's stderr."""
    text = textwrap.dedent(host_tensorrt.MODULE)
    (gpu_host / "tensorrt.py").write_text(text[: text.index(textwrap.dedent(PLUGIN_LAYER))] + REST)
    whole = MambaPluginEmitter._attributes

    def lacking(fields: PluginFields) -> dict[str, Any]:
        return {name: x for name, x in whole(fields).items() if name != "width"}

    monkeypatch.setattr(MambaPluginEmitter, "_attributes", staticmethod(lacking))
    result = build(tmp_path, "--gpu", "h100")
    assert result.exit_code == 5
    assert "at node CausalConv_0: " in result.stderr
    assert "ValueError: CausalConv needs the fields width." in result.stderr


def test_a_native_build_says_so(compiled_tiny: Callable[[str, str], Path]) -> None:
    assert read_manifest(compiled_tiny("bf16", "a100")).options["mamba"] == "native"


@pytest.mark.parametrize(
    ("arguments", "model", "code", "message"),
    [
        (
            ["--gpu", "a10g"],
            "tiny",
            3,
            "TensorRT for RTX, which compiles ahead of time, has no plug",
        ),
        (
            ["--gpu", "h100"],
            "tiny",
            3,
            "Build on a host with h100 (pip install 'nemotrt[tensorrt]')",
        ),
        (["--gpu", "a10g"], "tiny-dense", 2, "qwen3 has no Mamba layers"),
        (["--backend", "native"], "tiny", 2, "--mamba is for backend tensorrt, not native"),
        (["--gpu", "h100", "--backend", "tensorrt-llm"], "tiny", 2, "not tensorrt-llm"),
    ],
)
def test_what_is_refused_and_why(
    arguments: list[str], model: str, code: int, message: str, tmp_path: Path
) -> None:
    result = build(tmp_path, *arguments, model=model)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_ordinary_tensorrt_must_be_there(gpu_host: Path, tmp_path: Path) -> None:
    (gpu_host / "tensorrt.py").unlink()
    result = build(tmp_path, "--gpu", "h100")
    assert result.exit_code == 3
    assert "pip install 'nemotrt[tensorrt]'" in result.stderr


def test_cuda_python_must_be_there(
    gpu_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_library, "MODULE", "no_such_module")
    result = build(tmp_path, "--gpu", "h100")
    assert result.exit_code == 3
    assert "pip install 'cuda-python>=13,<14'" in result.stderr


def test_a_compiler_of_kernels_must_be_there(
    gpu_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_image, "find_nvcc", lambda: None)
    monkeypatch.setattr(kernel_image, "NVRTC_MODULE", "no_such_module")
    result = build(tmp_path, "--gpu", "h100")
    assert result.exit_code == 3
    assert f"needs nvcc or NVRTC: {kernel_image.INSTALL}" in result.stderr


def test_nvcc_s_own_words_are_shown(
    gpu_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gpu_host / "nvcc").write_text("#!/bin/sh\necho 'Unsupported gpu architecture' >&2\nexit 1\n")
    result = build(tmp_path, "--gpu", "h100")
    assert result.exit_code == 5
    assert "nvcc ended with code 1: Unsupported gpu architecture" in result.stderr
    assert not (tmp_path / "e").exists()


def test_the_choices_are_those_of_the_option() -> None:
    result = CliRunner().invoke(main, ["build", "--help"])
    assert f"--mamba [{'|'.join(MambaLayers)}]" in result.output
