"""The Mamba plugins' operators spelled out in plain ONNX: the bodies that a graph carries.

So every ONNX runtime executes a graph with plugins, and TensorRT without our plugins compiles it.
The nodes are those of the emitters without plugins.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from nemotrt.engines.graph.onnx_graph import F32, OPSET, OnnxGraph
from nemotrt.engines.graph.ssd_scan import Chunk, scan
from nemotrt.engines.model.model_config import MambaConfig

DOMAIN = "nemotrt"
CAUSAL_CONV, SSD_SCAN = "CausalConv", "SsdScan"


class FunctionBody(OnnxGraph):
    """A graph's nodes inside a function, where constants are nodes too."""

    def __init__(self, name: str) -> None:
        """Start an empty body."""
        super().__init__(name, Path())

    def constant(self, array: npt.NDArray[Any], name: str = "") -> str:
        """Return a constant; equal ones are shared."""
        array = np.require(array, requirements="C")
        key = (array.dtype.str + array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            value = numpy_helper.from_array(array)
            self._constants[key] = self.op("Constant", value=value)
        return self._constants[key]

    def function(
        self, inputs: list[str], outputs: list[str], attributes: list[str]
    ) -> onnx.FunctionProto:
        """Return the finished function."""
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_function(
            DOMAIN, self.name, inputs, outputs, self.nodes, opsets, attributes
        )

    def part(self, x: str, start: int, size: int) -> str:
        """Return `size` columns of x from `start` on."""
        return self.op("Slice", x, self.ints(start), self.ints(start + size), self.ints(-1))


def causal_conv_function(mamba: MambaConfig, attributes: list[str]) -> onnx.FunctionProto:
    """Return the body of CausalConv.

    Inputs: projected [B, T, in_proj's rows], window [B, K-1, C], weight [C, 1, K], bias [C],
    lengths [B]. Outputs: y [B, T, C], moved window.
    """
    g, channels, window = FunctionBody(CAUSAL_CONV), mamba.conv_dim, mamba.conv_kernel - 1
    x = g.part("projected", mamba.inner_size, channels)
    full = g.op("Concat", "window", x, axis=1)
    rows = g.op("Add", g.op("Unsqueeze", "lengths", g.ints(1)), g.constant(np.arange(window)[None]))
    batch = g.op("Shape", "projected", end=1)
    extent = g.op("Concat", batch, g.ints(window, channels), axis=0)
    index = g.op("Expand", g.op("Unsqueeze", rows, g.ints(2)), extent)
    g.op("GatherElements", full, index, name="moved", axis=1)
    full = g.op("Transpose", full, perm=[0, 2, 1])
    y = g.op("Conv", full, "weight", "bias", group=channels, kernel_shape=[mamba.conv_kernel])
    y = g.op("Transpose", y, perm=[0, 2, 1])
    g.op("Mul", y, g.op("Sigmoid", y), name="y")
    inputs = ["projected", "window", "weight", "bias", "lengths"]
    return g.function(inputs, ["y", "moved"], attributes)


def ssd_scan_function(mamba: MambaConfig, attributes: list[str]) -> onnx.FunctionProto:
    """Return the body of SsdScan.

    Inputs: xbc [B, T, C], projected [B, T, in_proj's rows], state [B, heads, head_dim, state]
    float32, dt_bias, decay, skip [heads] float32, lengths [B]. Outputs: y [B, T, inner] float32,
    the state after the tokens.
    """
    g, inner = FunctionBody(SSD_SCAN), mamba.inner_size
    group_width = mamba.num_groups * mamba.state_size
    x, b, c = (g.op("Cast", v, to=F32) for v in g.split("xbc", (inner, group_width, group_width)))
    tokens = g.op("Squeeze", g.op("Shape", "projected", start=1, end=2))
    steps = g.op("Range", g.scalar(0, np.int64), tokens, g.scalar(1, np.int64))
    row = g.op("Unsqueeze", steps, g.ints(0))
    lower = g.op("GreaterOrEqual", g.op("Unsqueeze", steps, g.ints(1)), row)
    valid = g.op("Less", row, g.op("Unsqueeze", "lengths", g.ints(1)))
    heads = g.op("Reshape", x, g.ints(0, 0, mamba.num_heads, mamba.head_dim))
    dt = g.part("projected", inner + mamba.conv_dim, mamba.num_heads)
    dt = g.op("Softplus", g.op("Add", g.op("Cast", dt, to=F32), "dt_bias"))
    if mamba.is_dt_limited:
        dt = g.op("Clip", dt, *map(g.scalar, mamba.finite_time_step_limit))
    dt = g.op("Mul", dt, g.op("Unsqueeze", g.op("Cast", valid, to=F32), g.ints(2)))
    y, state = scan(g, mamba, Chunk(heads, b, c, dt, "decay", "state", lower), is_first_apart=True)
    skipped = g.op("Mul", heads, g.op("Unsqueeze", "skip", g.ints(1)))
    g.op("Reshape", g.op("Add", y, skipped), g.ints(0, 0, inner), name="y")
    g.op("Identity", state, name="after")
    inputs = ["xbc", "projected", "state", "dt_bias", "decay", "skip", "lengths"]
    return g.function(inputs, ["y", "after"], attributes)
