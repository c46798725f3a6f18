"""The two Mamba plugins, and the creators through which TensorRT makes them.

Imported only where ordinary TensorRT is. Not executed on a GPU by its authors.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import tensorrt as trt

from nemotrt.engines.backends.tensorrt.device.kernel_dims import conv_launch, scan_launch
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import (
    NAMESPACE,
    VERSION,
    CausalConvFields,
    PluginFields,
    SsdScanFields,
)
from nemotrt.engines.backends.tensorrt.plugins.mamba_plugin import (
    Libraries,
    MambaPlugin,
    plugin_fields,
    sizes,
)


class CausalConv(MambaPlugin):
    """Depthwise causal convolution with carried window, bias and SiLU.

    Inputs: projected [B, T, width], window [B, K - 1, channels], weight [channels, 1, K],
    bias [channels], all bfloat16, lengths [B] int64. Outputs: y [B, T, channels] bfloat16, and
    the window, moved by `lengths`.
    """

    inputs = (*4 * [trt.DataType.BF16], trt.DataType.INT64)
    outputs = (trt.DataType.BF16, trt.DataType.BF16)
    state = 1
    fields: CausalConvFields

    def get_output_shapes(
        self,
        inputs: list[trt.DimsExprs],
        shape_inputs: list[trt.DimsExprs],
        expr_builder: trt.IExprBuilder,
    ) -> list[trt.DimsExprs]:
        """Return [B, T, channels], and the window's shape."""
        channels = expr_builder.constant(self.fields.channels)
        return [trt.DimsExprs([inputs[0][0], inputs[0][1], channels]), inputs[self.state]]

    def _shapes(self) -> list[tuple[int, ...]]:
        """Return the inputs' shapes."""
        channels, kernel = self.fields.channels, self.fields.conv_kernel
        window, weight = (-1, kernel - 1, channels), (channels, 1, kernel)
        return [(-1, -1, self.fields.width), window, weight, (channels,), (-1,)]

    def enqueue(
        self,
        input_desc: list[trt.PluginTensorDesc],
        output_desc: list[trt.PluginTensorDesc],
        inputs: list[int],
        outputs: list[int],
        workspace: int,
        stream: int,
    ) -> None:
        """Launch the kernel."""
        batch, tokens, _ = sizes(input_desc[0].dims)
        launch = conv_launch(self.fields.channels, self.fields.width, batch, tokens)
        self._launch(launch, [*inputs, *outputs, ctypes.c_int(tokens)], stream)


class SsdScan(MambaPlugin):
    """Mamba-2's recurrence over the new tokens, with D x.

    Inputs: xbc [B, T, channels] and projected [B, T, width] bfloat16; state [B, heads, head_dim,
    state], dt_bias, decay and skip [heads] float32; lengths [B] int64. Outputs: y [B, T, heads *
    head_dim] float32, and the state after the tokens.
    """

    inputs = (*2 * [trt.DataType.BF16], *4 * [trt.DataType.FLOAT], trt.DataType.INT64)
    outputs = (trt.DataType.FLOAT, trt.DataType.FLOAT)
    state = 2
    fields: SsdScanFields

    @property
    def _inner(self) -> int:
        """Channels of x."""
        return self.fields.num_heads * self.fields.head_dim

    def get_output_shapes(
        self,
        inputs: list[trt.DimsExprs],
        shape_inputs: list[trt.DimsExprs],
        expr_builder: trt.IExprBuilder,
    ) -> list[trt.DimsExprs]:
        """Return [B, T, heads * head_dim], and the state's shape."""
        inner = expr_builder.constant(self._inner)
        return [trt.DimsExprs([inputs[0][0], inputs[0][1], inner]), inputs[self.state]]

    def _shapes(self) -> list[tuple[int, ...]]:
        """Return the inputs' shapes."""
        f = self.fields
        channels = self._inner + 2 * f.num_groups * f.state_size
        state = (-1, f.num_heads, f.head_dim, f.state_size)
        return [(-1, -1, channels), (-1, -1, f.width), state, *3 * [(f.num_heads,)], (-1,)]

    def enqueue(
        self,
        input_desc: list[trt.PluginTensorDesc],
        output_desc: list[trt.PluginTensorDesc],
        inputs: list[int],
        outputs: list[int],
        workspace: int,
        stream: int,
    ) -> None:
        """Launch the kernel of one token, or that of many."""
        f = self.fields
        batch, tokens, _ = sizes(input_desc[0].dims)
        limits = ctypes.c_float(f.dt_min), ctypes.c_float(f.dt_max)
        arguments = [*inputs, *outputs, *limits]
        if tokens > 1:
            arguments.append(ctypes.c_int(tokens))
        launch = scan_launch(f.num_heads, f.head_dim, f.decode_rows, batch, tokens)
        self._launch(launch, arguments, stream)


class MambaPluginCreator(trt.IPluginCreatorV3One):  # type: ignore[misc]
    """Creates one of the plugins from a graph's node, or from what a plan kept of it."""

    def __init__(
        self,
        fields: type[PluginFields],
        plugin: Callable[[Any, Libraries], MambaPlugin],
        libraries: Libraries,
    ) -> None:
        """Name the plugin and its fields."""
        trt.IPluginCreatorV3One.__init__(self)
        self.name = fields.op
        self.plugin_namespace = NAMESPACE
        self.plugin_version = VERSION
        self._kept = plugin_fields(fields)
        self.field_names = trt.PluginFieldCollection_(trt.PluginFieldCollection(self._kept))
        self._fields, self._plugin, self._libraries = fields, plugin, libraries

    def create_plugin(
        self, name: str, field_collection: trt.PluginFieldCollection_, phase: trt.TensorRTPhase
    ) -> MambaPlugin:
        """Return the plugin of a node.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        found = [field_collection[index] for index in range(len(field_collection))]
        return self._plugin(self._fields.read(found), self._libraries)


def creators(libraries: Libraries) -> list[MambaPluginCreator]:
    """Return the creators of both plugins."""
    return [
        MambaPluginCreator(CausalConvFields, CausalConv, libraries),
        MambaPluginCreator(SsdScanFields, SsdScan, libraries),
    ]
