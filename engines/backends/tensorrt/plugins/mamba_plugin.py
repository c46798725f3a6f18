"""A TensorRT layer in Python that launches one of our kernels: what both plugins share.

Imported only where ordinary TensorRT is. Of TensorRT's V3 interface a plugin is all three parts,
core, build and runtime; its state is aliased, so the kernel updates it where it lies.
Not executed on a GPU by its authors.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tensorrt as trt

from nemotrt.engines.backends.tensorrt.device.kernel_dims import Launch
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import NAMESPACE, VERSION, PluginFields

Libraries = dict[str, KernelLibrary]  # by the key of what they were compiled from


class MambaPlugin(
    trt.IPluginV3,  # type: ignore[misc]  # without TensorRT its classes have no types
    trt.IPluginV3OneCore,  # type: ignore[misc]
    trt.IPluginV3OneBuildV2,  # type: ignore[misc]
    trt.IPluginV3OneRuntime,  # type: ignore[misc]
):
    """What both plugins share; a subclass says its tensors' types and shapes, and launches.

    `inputs` and `outputs` are the tensors' types in order; `state` is the index of the input that
    the last output updates in place.
    """

    inputs: ClassVar[tuple[trt.DataType, ...]]
    outputs: ClassVar[tuple[trt.DataType, ...]]
    state: ClassVar[int]

    def __init__(self, fields: PluginFields, libraries: Libraries) -> None:
        """Take the node's fields, and where the kernels are found."""
        trt.IPluginV3.__init__(self)
        trt.IPluginV3OneCore.__init__(self)
        trt.IPluginV3OneBuildV2.__init__(self)
        trt.IPluginV3OneRuntime.__init__(self)
        self.plugin_name = fields.op
        self.plugin_namespace = NAMESPACE
        self.plugin_version = VERSION
        self.num_outputs = len(self.outputs)
        self.timing_cache_id = repr(fields)
        self.fields = fields
        self.libraries = libraries
        # What TensorRT reads of the fields points into these objects.
        self._arrays = fields.arrays()
        self._kept = plugin_fields(type(fields), self._arrays)
        self._saved = trt.PluginFieldCollection_(trt.PluginFieldCollection(self._kept))

    def get_capability_interface(self, type: trt.PluginCapabilityType) -> "MambaPlugin":
        """Return the plugin, which is core, build and runtime."""
        return self

    def clone(self) -> "MambaPlugin":
        """Return a copy."""
        return type(self)(self.fields, self.libraries)

    # Build

    def get_output_data_types(self, input_types: list[trt.DataType]) -> list[trt.DataType]:
        """Return the outputs' types, which are fixed."""
        return list(self.outputs)

    def supports_format_combination(
        self, pos: int, in_out: list[trt.DynamicPluginTensorDesc], num_inputs: int
    ) -> bool:
        """Whether a tensor may be so: each has one type, and lies in order."""
        desc = in_out[pos].desc
        expected = (*self.inputs, *self.outputs)[pos]
        return bool(desc.type == expected and desc.format == trt.TensorFormat.LINEAR)

    def configure_plugin(
        self, inp: list[trt.DynamicPluginTensorDesc], out: list[trt.DynamicPluginTensorDesc]
    ) -> None:
        """Check the graph's shapes against the fields."""
        self._check([sizes(item.desc.dims) for item in inp])

    def get_aliased_input(self, output_index: int) -> int:
        """Return the input whose memory an output has; -1 for none."""
        return self.state if output_index == len(self.outputs) - 1 else -1

    def get_valid_tactics(self) -> list[int]:
        """Return no tactics of our own."""
        return []

    def get_workspace_size(
        self, inp: list[trt.DynamicPluginTensorDesc], out: list[trt.DynamicPluginTensorDesc]
    ) -> int:
        """Return 0: the kernels need no scratch memory."""
        return 0

    # Runtime

    def attach_to_context(self, resource_context: trt.IPluginResourceContext) -> "MambaPlugin":
        """Return a copy for an execution context."""
        return self.clone()

    def get_fields_to_serialize(self) -> trt.PluginFieldCollection_:
        """Return what the plan keeps."""
        return self._saved

    def set_tactic(self, tactic: int) -> None:
        """Take the default tactic, the only one."""

    def on_shape_change(
        self, inp: list[trt.PluginTensorDesc], out: list[trt.PluginTensorDesc]
    ) -> None:
        """Check the shapes of the executions to come."""
        self._check([sizes(item.dims) for item in inp])

    def _check(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Raise unless the inputs' shapes are what the kernels were compiled for; -1 is free."""
        for index, (shape, expected) in enumerate(zip(shapes, self._shapes(), strict=True)):
            fits = len(shape) == len(expected) and all(
                found in (wanted, -1) or wanted == -1
                for found, wanted in zip(shape, expected, strict=True)
            )
            if not fits:
                raise ValueError(f"{self.plugin_name}: input {index} is {shape}, not {expected}.")

    def _shapes(self) -> list[tuple[int, ...]]:
        """Return the inputs' shapes; -1 is free."""
        raise NotImplementedError

    def _launch(self, launch: Launch, arguments: Sequence[Any], stream: int) -> None:
        """Enqueue a kernel; addresses are ints, the rest is typed."""
        typed = [ctypes.c_void_p(x) if isinstance(x, int) else x for x in arguments]
        library = self.libraries.get(self.fields.kernels)
        if library is None:
            raise RuntimeError(f"the kernels {self.fields.kernels} are not registered.")
        library.launch(*launch, typed, stream)


def sizes(dims: trt.Dims) -> tuple[int, ...]:
    """Return a shape as a tuple."""
    return tuple(dims[axis] for axis in range(len(dims)))


def plugin_fields(
    fields: type[PluginFields], arrays: dict[str, npt.NDArray[Any]] | None = None
) -> list[trt.PluginField]:
    """Return one PluginField a name, with its value if `arrays` has them."""
    empty = np.empty(0, np.int8)
    return [
        trt.PluginField(name, (arrays or {}).get(name, empty), getattr(trt.PluginFieldType, kind))
        for name, kind in fields.kinds().items()
    ]
