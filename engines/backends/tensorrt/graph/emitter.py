"""The graph that TensorRT compiles: bfloat16 activations, float32 state, weights as inputs.

Inputs and outputs as in the standard emitter, with conv and KV states in bfloat16. Every linear's
weight, the embedding and the head are graph inputs under their hub names, so a plan stays small
and is bound at load to the checkpoint's own tensors. Scales are constants: only then does the
compiler choose INT8 and FP8 GEMMs. TensorRT wants TensorScatter's output to be a graph output, and
16-bit attention for its fused kernels; both hold here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nemotrt.engines.backends.tensorrt.graph.options import PRECISIONS
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.codes.packed import INT4_WORD
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.graph.onnx_graph import F32, OnnxGraph
from nemotrt.engines.graph.standard import StandardEmitter
from nemotrt.engines.model.numerics import Granularity, NumberFormat, Precision
from nemotrt.errors import ArtefactError, ConfigError

BF16 = NumberFormat.BF16.onnx


@dataclass(frozen=True, slots=True)
class BoundWeight:
    """A graph input that a checkpoint tensor feeds, in `dtype` (safetensors' word).

    `shape` is the input's; with `is_transposed` the tensor [out, in] is bound as [in, out].
    """

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    is_transposed: bool = False


class TensorRTEmitter(StandardEmitter):
    """Emits for TensorRT's strongly typed networks; `bound` lists the weight inputs."""

    compute = BF16
    is_first_apart = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        graph: OnnxGraph,
        max_seq_len: int,
        precision: Precision = Precision.BF16,
        *,
        is_embedded: bool = False,
    ) -> None:
        """Prepare for `precision`, which must be the checkpoint's own.

        Args:
            checkpoint: where the weights are.
            graph: the graph to fill.
            max_seq_len: the KV cache's capacity.
            precision: of the linears.
            is_embedded: the weights are constants of the graph instead of inputs.
        """
        own = checkpoint.quant.precision or Precision.BF16
        if own is not precision or precision not in PRECISIONS:
            raise ConfigError(
                f"{checkpoint.path} is quantized as {checkpoint.quant.algo}; "
                f"the tensorrt graph can't be {precision}."
            )
        self.precision, self.stored = precision, precision.weights.format
        self.is_embedded = is_embedded
        self.bound: dict[str, BoundWeight] = {}
        self._quantized: dict[tuple[str, bytes], str] = {}
        self._uses: dict[str, int] = {}
        super().__init__(checkpoint, graph, max_seq_len)

    def bind(self, weight: str, stored: NumberFormat, *, transpose: bool = False) -> str:
        """Return (declared once) the input that tensor `weight` feeds, or its constant."""
        if weight in self.bound:
            return weight
        ref = self.checkpoint[weight]
        if self.is_embedded:
            values = ref.map() if stored.is_code else self.floats(weight)
            return self.graph.constant(values.T if transpose else values, weight)
        shape = ref.shape[::-1] if transpose else ref.shape
        self.bound[weight] = BoundWeight(weight, stored.safetensors, shape, transpose)
        return self.graph.input(weight, stored.onnx, list(shape))

    def embed(self, weight: str) -> str:
        """Gather from the bound table."""
        return self.graph.op("Gather", self.bind(weight, NumberFormat.BF16), self.ids)

    def linear(self, x: str, weight: str) -> str:
        """MatMul with the bound weight; its node is named after the linear's module."""
        g = self.graph
        module = weight.removesuffix(".weight")
        ref = self.checkpoint[weight]
        is_quantized = LinearWeight(self.checkpoint, weight).is_quantized
        expected = self.stored.safetensors or INT4_WORD
        if is_quantized and ref.dtype != expected:
            raise ArtefactError(f"{weight} is {ref.dtype}; {self.precision} has {expected}.")
        is_weight_only = is_quantized and self.precision.is_weight_only
        if is_weight_only:
            x = self._own_input(x)
        # Two axes: with three the compiler copies weights in each call, with some batch sizes.
        flat = g.op("Reshape", x, g.ints(-1, ref.shape[1]))
        if is_weight_only and self.precision.weights.is_grouped:
            y = self._grouped(flat, weight, module)
        elif is_weight_only:
            y = self._weight_only(flat, weight, module)
        elif is_quantized:
            y = self._quantized_gemm(flat, weight, module)
        else:
            values = g.op("Transpose", self.bind(weight, NumberFormat.BF16), perm=[1, 0])
            y = g.op("MatMul", flat, values, name=module)
        extent = g.op("Concat", g.op("Shape", x, end=2), g.ints(ref.shape[0]), axis=0)
        return g.op("Reshape", y, extent)

    def _own_input(self, x: str) -> str:
        """Return x, times a one that the compiler can't see through if a linear has read x before.

        Linears of one input are merged by the compiler: it would dequantize q, k and v into one
        matrix in memory, in each call.
        """
        g, uses = self.graph, self._uses.get(x, 0)
        self._uses[x] = uses + 1
        if not uses:
            return x
        is_true = g.op("Greater", self.past, g.scalar(-uses, np.int64))  # [B]: never negative
        ones = g.op("Unsqueeze", g.op("Cast", is_true, to=BF16), g.ints(1, 2))
        return g.op("Mul", x, ones)

    def _weight_only(self, x: str, weight: str, module: str) -> str:
        """Return x times the dequantized weight, [M, out].

        The weight is bound as [in, out]: so one kernel reads its codes, dequantizes and multiplies;
        [out, in] would be transposed, as a whole, in each call.
        """
        g = self.graph
        codes = self.bind(weight, self.stored, transpose=True)
        scale = g.constant(LinearWeight(self.checkpoint, weight).scale(), f"{weight}_scale")
        values = g.op("DequantizeLinear", codes, scale, name=f"{module}.values", axis=1)
        values = self.cast(values, BF16)
        return g.op("MatMul", x, values, name=module)

    def _grouped(self, x: str, weight: str, module: str) -> str:
        """Return x times a weight in int4 groups, [M, out].

        The codes are constants whatever `is_embedded` says: of inputs the compiler dequantizes the
        whole matrix into memory, in each call; of constants one kernel reads codes and scales.
        """
        g, linear = self.graph, LinearWeight(self.checkpoint, weight)
        columns = self.checkpoint[weight].shape[1]
        codes, scales = linear.checkpoint[weight].map(), linear.group_scales()
        values = g.op(
            "DequantizeLinear",
            g.packed_int4(codes, weight),
            g.constant(scales.astype(NumberFormat.BF16.numpy), f"{weight}_scale"),
            name=f"{module}.values",
            axis=1,
            block_size=columns // scales.shape[1],
        )
        return g.op("MatMul", x, g.op("Transpose", values, perm=[1, 0]), name=module)

    def _quantized_gemm(self, x: str, weight: str, module: str) -> str:
        """Return the product of codes, times both scales: [M, out]."""
        g = self.graph
        scale, axis = self._weight_scale(weight)
        # INT8 sums times their scales need float32; the FP8 GEMM scales before it rounds.
        attrs: dict[str, Any] = {"output_dtype": BF16} if self.stored is NumberFormat.FP8 else {}
        codes = self.bind(weight, self.stored)
        name = f"{module}.values"
        values = g.op("DequantizeLinear", codes, scale, name=name, **axis, **attrs)
        values = g.op("Transpose", values, perm=[1, 0])
        y = g.op("MatMul", self._round_trip(x, module, attrs), values, name=module)
        return y if attrs else g.op("Cast", y, to=BF16)

    def _weight_scale(self, weight: str) -> tuple[str, dict[str, Any]]:
        """Return the weight's scale, and the axis attribute of one per output channel."""
        scale = LinearWeight(self.checkpoint, weight).scale()
        if self.precision.weights.granularity is Granularity.TENSOR:
            if not (scale == scale[0]).all():
                raise ConfigError(f"{weight}_scale is per channel; fp8 has one scale a tensor.")
            return self.graph.scalar(float(scale[0])), {}
        return self.graph.constant(scale, f"{weight}_scale"), {"axis": 0}

    def _round_trip(self, x: str, module: str, attrs: dict[str, Any]) -> str:
        """Return x quantized and dequantized; linears with equal scales share it."""
        g = self.graph
        scale = self._input_scale(module)
        smooth = f"{module}.pre_quant_scale"
        factors = self.floats(smooth) if smooth in self.checkpoint else np.zeros(0, np.float32)
        key = (x, scale.tobytes() + factors.tobytes())
        if key not in self._quantized:
            if factors.size:
                x = g.op("Mul", x, g.constant(factors, smooth))
            if not attrs:
                x = g.op("Cast", x, to=F32)
            name = g.scalar(float(scale))
            own = f"{module}.codes"
            codes = g.op("QuantizeLinear", x, name, name=own, output_dtype=self.stored.onnx)
            self._quantized[key] = g.op("DequantizeLinear", codes, name, **attrs)
        return self._quantized[key]

    def _input_scale(self, module: str) -> np.float32:
        """Return the static scale of a linear's input."""
        name = f"{module}.input_scale"
        scale = self.checkpoint.floats(name).reshape(-1)
        if scale.size != 1 or not scale[0] > 0:
            raise ArtefactError(f"{self.checkpoint.path}: {name} must be one positive value.")
        return np.float32(scale[0])
