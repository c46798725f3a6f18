"""TensorRT's graph with two operators of ours in each Mamba layer, for which plugins stand in.

Inputs and outputs are those of the graph without plugins. Both operators read in_proj's result and
the convolution's where they lie, so neither is split into contiguous parts first.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.graph.emitter import TensorRTEmitter
from nemotrt.engines.backends.tensorrt.graph.functions import (
    CAUSAL_CONV,
    DOMAIN,
    SSD_SCAN,
    causal_conv_function,
    ssd_scan_function,
)
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import (
    NAMESPACE,
    VERSION,
    CausalConvFields,
    PluginFields,
    SsdScanFields,
)
from nemotrt.engines.graph.onnx_graph import F32
from nemotrt.engines.graph.ssd_scan import state_shape
from nemotrt.engines.model.model_config import MambaConfig
from nemotrt.engines.model.tensor_names import Block


class MambaPluginEmitter(TensorRTEmitter):
    """Emits CausalConv and SsdScan in the domain `nemotrt`, and their bodies once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Prepare as without plugins."""
        self._sources: dict[str, str] = {}  # a part of a split value -> the value
        self._convolved: set[str] = set()
        super().__init__(*arguments, **options)

    def split(self, x: str, sizes: Sequence[int]) -> Sequence[str]:
        """Split of the last axis; SsdScan reads the convolution's parts inside the whole."""
        parts: Sequence[str]
        if x in self._convolved:
            parts = [f"{x}.{index}" for index in range(len(sizes))]
        else:
            parts = super().split(x, sizes)
        self._sources |= dict.fromkeys(parts, x)
        return parts

    def causal_conv(self, x: str, block: Block, mamba: MambaConfig) -> str:
        """CausalConv over in_proj's result; the window is updated in place."""
        g, dims = self.graph, KernelDims.of(mamba)
        shape: list[int | str] = ["B", mamba.conv_kernel - 1, mamba.conv_dim]
        window = g.input(f"conv_{block.index}", self.compute, shape)
        fields = CausalConvFields(dims.key, mamba.conv_dim, mamba.conv_kernel, dims.width)
        attributes = self._attributes(fields)
        if CAUSAL_CONV not in g.functions:
            g.functions[CAUSAL_CONV] = causal_conv_function(mamba, list(attributes))
        weight, bias = (self.vector(block.name(f"conv1d.{name}")) for name in ("weight", "bias"))
        y, moved = g.ops(
            CAUSAL_CONV,
            *(self._sources[x], window, weight, bias, self.lengths),
            names=[f"CausalConv_{block.index}", f"conv_out_{block.index}"],
            domain=DOMAIN,
            **attributes,
        )
        g.output(moved, self.compute, shape)
        self._convolved.add(y)
        return y

    def state_space(self, x: str, b: str, c: str, dt: str, block: Block, mamba: MambaConfig) -> str:
        """SsdScan over the convolution's result; the state is updated in place."""
        g, dims = self.graph, KernelDims.of(mamba)
        state = g.input(f"ssm_{block.index}", F32, state_shape(mamba))
        fields = SsdScanFields(
            dims.key,
            mamba.num_heads,
            mamba.head_dim,
            mamba.state_size,
            mamba.num_groups,
            dims.width,
            dims.decode_rows,
            *mamba.finite_time_step_limit,
        )
        attributes = self._attributes(fields)
        if SSD_SCAN not in g.functions:
            g.functions[SSD_SCAN] = ssd_scan_function(mamba, list(attributes))
        floats = self.checkpoint.floats
        heads = (
            g.constant(floats(block.name("dt_bias"))),
            self.decay_rate(block),
            g.constant(floats(block.name("D"))),
        )
        y, after = g.ops(
            SSD_SCAN,
            *(self._sources[x], self._sources[dt], state, *heads, self.lengths),
            names=[f"SsdScan_{block.index}", f"ssm_out_{block.index}"],
            domain=DOMAIN,
            **attributes,
        )
        g.output(after, F32, state_shape(mamba))
        return y

    @staticmethod
    def _attributes(fields: PluginFields) -> dict[str, Any]:
        """Return a node's attributes; with the namespace the parser prefers plugin to body."""
        place = {"plugin_version": VERSION, "plugin_namespace": NAMESPACE}
        return {**asdict(fields), **place}
