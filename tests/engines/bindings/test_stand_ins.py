"""The stand-ins have no name and no parameter that the real classes lack, in any version."""

import ast
import inspect
import textwrap
from enum import Enum
from typing import Any

import pytest

from support import cuda_stand_in, host_tensorrt, nvrtc_stand_in, plugin_stand_in, tensorrt_stand_in
from support.nvidia.api import Api, Member
from support.nvidia.cuda_api import VERSIONS as CUDA_VERSIONS
from support.nvidia.cuda_api import cuda_apis
from support.nvidia.tensorrt_api import VERSIONS, rtx_api, tensorrt_api

CLASSES = (
    tensorrt_stand_in.Runtime,
    tensorrt_stand_in.ICudaEngine,
    tensorrt_stand_in.IExecutionContext,
    tensorrt_stand_in.IRuntimeConfig,
    tensorrt_stand_in.IRuntimeCache,
)
ENUMS = (
    tensorrt_stand_in.TensorIOMode,
    tensorrt_stand_in.ExecutionContextAllocationStrategy,
    tensorrt_stand_in.DynamicShapesKernelSpecializationStrategy,
)
# The stand-in's own, not of the API: how a file of kernels begins; what a class keeps of itself.
OWN = {"HEADER"}
# What the stand-in has for TensorRT for RTX alone.
RTX_ONLY = {
    ("IRuntimeConfig", "create_runtime_cache"),
    ("IRuntimeConfig", "set_runtime_cache"),
    ("IExecutionContext", "is_stream_capturable"),
    ("DynamicShapesKernelSpecializationStrategy", "LAZY"),
    ("DynamicShapesKernelSpecializationStrategy", "EAGER"),
    ("IRuntimeCache", "serialize"),
    ("IRuntimeCache", "deserialize"),
}
# A class of the compiler process's stand-in, and the real one.
COMPILER = {
    "Builder": "Builder",
    "Runtime": "Runtime",
    "_Engine": "ICudaEngine",
    "_Inspector": "EngineInspector",
}


def parameters(member: Member) -> list[list[str]]:
    return [[item.name for item in found.parameters] for found in member.signatures]


def faults(api: Api) -> set[tuple[str, str]]:
    """Return (class, name) of what the stand-in has and the API has not, or has otherwise."""
    wrong = set()
    for kind in (*CLASSES, *ENUMS):
        real = api.members.get(kind.__name__, {})
        names = [member.name for member in kind] if issubclass(kind, Enum) else vars(kind)
        for name in names:
            if name.startswith("_") or name in OWN:
                continue
            ours, member = getattr(kind, name), real.get(name)
            if member is None or (callable(ours) != (member.kind == "function")):
                wrong.add((kind.__name__, name))
            elif callable(ours):
                given = list(inspect.signature(ours).parameters)[1:]
                if given not in parameters(member):
                    wrong.add((kind.__name__, name))
    return wrong


def test_it_speaks_tensorrt_for_rtx() -> None:
    assert faults(rtx_api()) == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_it_speaks_ordinary_tensorrt(version: str) -> None:
    assert faults(tensorrt_api(version)) == RTX_ONLY


def test_a_name_or_keyword_of_its_own_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    context = tensorrt_stand_in.IExecutionContext
    monkeypatch.setattr(context, "execute_async_v9", lambda self, stream: True, raising=False)
    monkeypatch.setattr(context, "set_device_memory", lambda self, address, size: None)
    assert faults(rtx_api()) == {
        ("IExecutionContext", "execute_async_v9"),
        ("IExecutionContext", "set_device_memory"),
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_the_compiler_s_stand_in_speaks_it_too(version: str) -> None:
    """What it has is there, with its parameters; what it takes from RTX's binding is there, too."""
    api = tensorrt_api(version)
    tree = ast.parse(textwrap.dedent(host_tensorrt.MODULE))
    checked = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            assert {alias.name for alias in node.names} <= set(api.members[""])
        if isinstance(node, ast.ClassDef) and node.name in COMPILER:
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    real = parameters(api.members[COMPILER[node.name]][item.name])
                    given = [argument.arg for argument in item.args.args[1:]]
                    assert given in real, (node.name, item.name)
                    checked += 1
    assert checked >= 8


@pytest.mark.parametrize("version", VERSIONS)
def test_plugins_are_asked_as_they_are_by_the_real_one(version: str) -> None:
    real = tensorrt_api(version).members["IExprBuilder"]["constant"]
    ours = list(inspect.signature(plugin_stand_in.Sizes.constant).parameters)[1:]
    assert len(ours) == len(real.signatures[0].parameters)


STAND_INS: dict[str, tuple[Any, str]] = {
    "runtime": (cuda_stand_in.Cuda, "cuda"),
    "driver": (plugin_stand_in.Driver, "cu"),
    "nvrtc": (nvrtc_stand_in.Nvrtc, "nvrtc"),
}


@pytest.mark.parametrize("version", CUDA_VERSIONS)
@pytest.mark.parametrize("module", STAND_INS)
def test_they_speak_cuda_python(module: str, version: str) -> None:
    stand_in, prefix = STAND_INS[module]
    real = cuda_apis(version)[module].members
    found = {
        name: value
        for name, value in vars(stand_in).items()
        if name.startswith(prefix) and inspect.isfunction(value)
    }
    for name, value in found.items():
        assert list(inspect.signature(value).parameters)[1:] in parameters(real[""][name]), name
    assert len(found) >= 3


@pytest.mark.parametrize("version", CUDA_VERSIONS)
def test_cuda_s_enums_are_there(version: str) -> None:
    """The enums' members are there, by name."""
    real = cuda_apis(version)["runtime"]
    for name, kind in vars(cuda_stand_in).items():
        if isinstance(kind, type) and issubclass(kind, Enum) and name.startswith("cuda"):
            assert {member.name for member in kind} <= set(real.members[name])
