"""What every layer of a step shares: the inputs, each token's position, and who may see whom."""

import numpy as np
from onnx import TensorProto

from nemotrt.engines.graph.onnx_graph import F32, OnnxGraph


class StepInputs:
    """The three inputs of a step, B sequences of up to T new tokens, and what follows from them.

    Attributes:
        ids: [B, T] int64.
        lengths: [B] int64, new tokens; `lengths_column` is [B, 1].
        past: [B] int64, tokens already cached.
        batch: [1], B.
        valid: [B, T] float32, 0 for padding.
        positions: [B, T], of each token in its sequence.
        lower: [T, T] bool, the causal mask of a chunk.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        """Declare them in `graph`."""
        self.graph = graph
        self._declare_inputs()
        self._declare_positions()

    def _declare_inputs(self) -> None:
        """Declare input_ids, lengths and past."""
        self.ids = self.graph.input("input_ids", TensorProto.INT64, ["B", "T"])
        self.lengths = self.graph.input("lengths", TensorProto.INT64, ["B"])
        self.past = self.graph.input("past", TensorProto.INT64, ["B"])

    def _declare_positions(self) -> None:
        """Build the positions, validity and causal masks from the three inputs."""
        g = self.graph
        shape = g.op("Shape", self.ids)
        self.batch = g.op("Slice", shape, g.ints(0), g.ints(1))
        tokens = g.op("Squeeze", g.op("Slice", shape, g.ints(1), g.ints(2)))
        steps = g.op("Range", g.scalar(0, np.int64), tokens, g.scalar(1, np.int64))
        row = g.op("Unsqueeze", steps, g.ints(0))  # [1, T]
        self.lengths_column = g.op("Unsqueeze", self.lengths, g.ints(1))  # [B, 1]
        self.valid = g.op("Cast", g.op("Less", row, self.lengths_column), to=F32)  # [B, T]
        self.positions = g.op("Add", g.op("Unsqueeze", self.past, g.ints(1)), row)  # [B, T]
        self.lower = g.op("GreaterOrEqual", g.op("Unsqueeze", steps, g.ints(1)), row)  # [T, T]
