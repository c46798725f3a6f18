"""Stands in for TensorRT where a graph has Mamba plugins: our plugins are asked, configured, saved,
restored and launched as TensorRT does it, and their kernels run in the emulator.

The classes that plugins derive from are real: those of tensorrt_rtx_bindings, which has the whole
plugin interface but no network that takes plugins.
"""

# ruff: noqa: N802, N803  (the names are those of the APIs)

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import tensorrt_rtx_bindings as trt
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import NAMESPACE, VERSION
from nemotrt.engines.backends.tensorrt.plugins import registration
from support import tensorrt_stand_in
from support.cuda_stand_in import Cuda
from support.emulated_kernels import EmulatedKernels, emulated
from support.graph_runner import as_float32

NUMPY = {
    trt.DataType.BF16: np.dtype(ml_dtypes.bfloat16),
    trt.DataType.FLOAT: np.dtype(np.float32),
    trt.DataType.INT64: np.dtype(np.int64),
}
MODULES = ("mamba_plugin", "layers")
OPERATORS = ("CausalConv", "SsdScan")


@contextmanager
def ordinary_tensorrt() -> Iterator[ModuleType]:
    """Yield the module `layers`, imported with the bindings in ordinary TensorRT's place.

    What is registered within the block is no longer after it.
    """
    names = ["tensorrt", *(f"nemotrt.engines.backends.tensorrt.plugins.{name}" for name in MODULES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "LIBRARIES", {})
        patch.setattr(registration, "CREATORS", [])
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        patch.setitem(sys.modules, "tensorrt", trt)
        try:
            yield import_module(names[-1])
        finally:
            for creator in registration.CREATORS:
                assert trt.get_plugin_registry().deregister_creator(creator)
            for name in names[1:]:
                sys.modules.pop(name, None)


class Driver:
    """cuda.bindings.driver: one library, whose kernels run in the emulator at once."""

    LIBRARY, FIRST_KERNEL = 5, 100

    def __init__(self, dims: KernelDims, image: bytes) -> None:
        self.kernels: EmulatedKernels = emulated(dims)
        self.image = image
        self.names: list[str] = []

    def cuLibraryLoadData(
        self,
        code: bytes,
        jitOptions: list[Any],
        jitOptionsValues: list[Any],
        numJitOptions: int,
        libraryOptions: list[Any],
        libraryOptionValues: list[Any],
        numLibraryOptions: int,
    ) -> tuple[int, int]:
        assert code == self.image and numJitOptions == numLibraryOptions == 0
        return 0, self.LIBRARY

    def cuLibraryGetKernel(self, library: int, name: bytes) -> tuple[int, int]:
        assert library == self.LIBRARY
        self.names.append(name.decode())
        return 0, self.FIRST_KERNEL + len(self.names) - 1

    def cuLaunchKernel(
        self,
        f: int,
        gridDimX: int,
        gridDimY: int,
        gridDimZ: int,
        blockDimX: int,
        blockDimY: int,
        blockDimZ: int,
        sharedMemBytes: int,
        hStream: int,
        kernelParams: int,
        extra: int,
    ) -> tuple[int]:
        assert hStream == Cuda.STREAM and sharedMemBytes == extra == 0
        assert blockDimY == blockDimZ == 1
        grid = (gridDimX, gridDimY, gridDimZ)
        self.kernels.launch_raw(self.names[f - self.FIRST_KERNEL], grid, blockDimX, kernelParams)
        return (0,)


class Sizes:
    """IExprBuilder, where every size is known."""

    def constant(self, value: int) -> int:
        return value


def desc(array: Any, kind: Any) -> Any:
    """Return the PluginTensorDesc of an array."""
    found = trt.PluginTensorDesc()
    found.type, found.format = kind, trt.TensorFormat.LINEAR
    found.dims = trt.Dims(list(array.shape))
    return found


def dynamic(inner: Any) -> Any:
    """Return a DynamicPluginTensorDesc around it."""
    found = trt.DynamicPluginTensorDesc()
    found.desc = inner
    return found


def field(name: str, value: int | float | str) -> tuple[Any, Any]:
    """Return a PluginField as the ONNX parser makes it of an attribute, and its memory."""
    if isinstance(value, str):
        data, kind = np.frombuffer(value.encode(), np.int8), trt.PluginFieldType.CHAR
    elif isinstance(value, float | np.floating):
        data, kind = np.array([value], np.float32), trt.PluginFieldType.FLOAT32
    else:
        data, kind = np.array([value], np.int32), trt.PluginFieldType.INT32
    return trt.PluginField(name, data, kind), data


def run_plugin(creator: Any, attributes: dict[str, Any], values: list[Any]) -> list[np.ndarray]:
    """Build, save, restore and run one plugin; return its outputs."""
    known = [item.name for item in creator.field_names]
    kept = [field(name, attributes[name]) for name in known if attributes.get(name) is not None]
    given = trt.PluginFieldCollection_(trt.PluginFieldCollection([item for item, _ in kept]))
    plugin = creator.create_plugin("node", given, trt.TensorRTPhase.BUILD)
    assert plugin.get_capability_interface(trt.PluginCapabilityType.BUILD) is plugin
    inputs = [
        np.ascontiguousarray(np.asarray(value).astype(NUMPY[kind]))
        for value, kind in zip(values, plugin.inputs, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trt, "DimsExprs", list)  # real ones are made of TensorRT's expressions only
        shapes = plugin.get_output_shapes([list(x.shape) for x in inputs], [], Sizes())
    kinds = plugin.get_output_data_types(list(plugin.inputs))
    assert len(shapes) == len(kinds) == plugin.num_outputs
    outputs = [np.full(s, 99, NUMPY[k]) for s, k in zip(shapes, kinds, strict=True)]
    for index in range(plugin.num_outputs):
        alias = plugin.get_aliased_input(index)
        if alias >= 0:
            assert outputs[index].shape == inputs[alias].shape
            outputs[index] = inputs[alias]
    descs = [desc(x, k) for x, k in zip([*inputs, *outputs], [*plugin.inputs, *kinds], strict=True)]
    whole = [dynamic(item) for item in descs]
    for position in range(len(whole)):
        assert plugin.supports_format_combination(position, whole, len(inputs))
    plugin.configure_plugin(whole[: len(inputs)], whole[len(inputs) :])
    assert plugin.get_workspace_size(whole[: len(inputs)], whole[len(inputs) :]) == 0
    saved = plugin.get_fields_to_serialize()
    restored = creator.create_plugin("node", saved, trt.TensorRTPhase.RUNTIME)
    running = restored.attach_to_context(None)
    sides = descs[: len(inputs)], descs[len(inputs) :]
    running.on_shape_change(*sides)
    running.set_tactic(0)
    places = ([x.ctypes.data for x in side] for side in (inputs, outputs))
    running.enqueue(*sides, *places, 0, Cuda.STREAM)
    return outputs


def operator(creator: Any) -> type[OpRun]:
    """Return an operator of ONNX's reference evaluator that runs a plugin."""

    def _run(self: OpRun, *values: Any, **attributes: Any) -> tuple[np.ndarray, ...]:
        found = run_plugin(creator, attributes, list(values))
        return tuple(x.astype(np.float32) for x in found)

    return type(creator.name, (OpRun,), {"op_domain": creator.plugin_namespace, "_run": _run})


def evaluator(graph: Path, creators: list[Any]) -> ReferenceEvaluator:
    """Return an evaluator of a graph whose plugins are run as plugins, the rest in float32."""
    model = onnx.load(str(as_float32(graph, graph.with_name("plugins.onnx"))))
    del model.functions[:]
    return ReferenceEvaluator(model, new_ops=[operator(creator) for creator in creators])


class PluginTensorRT(tensorrt_stand_in.TensorRT):
    """The module, for a graph with plugins; states are updated in place."""

    def Runtime(self, logger: Any) -> Any:
        return Runtime(self)


class Runtime(tensorrt_stand_in.Runtime):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        return Engine(self.module)


class Engine(tensorrt_stand_in.ICudaEngine):
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        registry = trt.get_plugin_registry()
        creators = [registry.get_creator(name, VERSION, NAMESPACE) for name in OPERATORS]
        self.evaluator = evaluator(module.graph, creators)

    def create_execution_context(self, strategy: Any = None) -> Any:
        return Context(self, strategy)


class Context(tensorrt_stand_in.IExecutionContext):
    def _is_in_place(self, kind: str) -> bool:
        return True

    def _compute(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        bf16 = NUMPY[trt.DataType.BF16]
        given = {
            name: arrays[name].astype(np.float32) if arrays[name].dtype == bf16 else arrays[name]
            for name in self.engine.inputs
        }
        found: list[np.ndarray] = self.engine.evaluator.run(None, given)
        return found
