"""The graph that TensorRT compiles: bfloat16 activations, float32 state, weights as inputs.

Inputs and outputs as in the standard emitter, with conv and KV states in bfloat16. Every linear's
weight, its scale, the embedding and the head are graph inputs under their hub names, so a plan
stays small and is bound at load to the checkpoint's own tensors. TensorRT wants TensorScatter's
output to be a graph output, and 16-bit attention for its fused kernels; both hold here.
"""

from dataclasses import dataclass

from onnx import TensorProto

from nemotrt.engines.checkpoint import Checkpoint
from nemotrt.engines.emitters.standard import F32, StandardEmitter
from nemotrt.engines.linear_weight import LinearWeight
from nemotrt.engines.onnx_graph import OnnxGraph
from nemotrt.engines.precision import Precision
from nemotrt.errors import ConfigError

BF16 = int(TensorProto.BFLOAT16)
PRECISIONS = (Precision.BF16, Precision.INT8_WO)


@dataclass(frozen=True, slots=True)
class BoundWeight:
    """A graph input that a checkpoint tensor feeds; `dtype` is safetensors' word for its type."""

    tensor: str
    dtype: str
    shape: tuple[int, ...]


class TensorRTEmitter(StandardEmitter):
    """Emits for TensorRT's strongly typed networks; `bound` lists the weight inputs."""

    compute = BF16

    def __init__(
        self,
        checkpoint: Checkpoint,
        graph: OnnxGraph,
        max_seq_len: int,
        precision: Precision = Precision.BF16,
    ) -> None:
        """Prepare for `precision`, which the checkpoint's quantization must allow."""
        if precision not in PRECISIONS:
            raise ConfigError(f"the tensorrt graph has no precision {precision} yet.")
        self.precision = precision
        self.bound: dict[str, BoundWeight] = {}
        super().__init__(checkpoint, graph, max_seq_len)

    def bind(self, weight: str, dtype: int, stored: str) -> str:
        """Declare (once) the input that tensor `weight` feeds."""
        if weight not in self.bound:
            shape = self.checkpoint[weight].shape
            self.bound[weight] = BoundWeight(weight, stored, shape)
            self.graph.input(weight, dtype, list(shape))
        return weight

    def embed(self, weight: str) -> str:
        """Gather from the bound table."""
        return self.graph.op("Gather", self.bind(weight, BF16, "BF16"), self.ids)

    def linear(self, x: str, weight: str) -> str:
        """MatMul with the bound weight, transposed; int8 codes go through DequantizeLinear."""
        g = self.graph
        linear = LinearWeight(self.checkpoint, weight)
        if linear.is_quantized:
            if self.precision is not Precision.INT8_WO or self.checkpoint[weight].dtype != "I8":
                raise ConfigError(f"{weight} is {self.checkpoint[weight].dtype}; use int8-wo.")
            linear.scale()  # its shape and values are checked here
            codes = self.bind(weight, TensorProto.INT8, "I8")
            scale = self.bind(f"{weight}_scale", F32, "F32")
            values = self.cast(g.op("DequantizeLinear", codes, scale, axis=0), BF16)
        else:
            values = self.bind(weight, BF16, "BF16")
        return g.op("MatMul", x, g.op("Transpose", values, perm=[1, 0]))
