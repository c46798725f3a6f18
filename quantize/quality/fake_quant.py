"""A quantized checkpoint's own arithmetic in float32: activations rounded as the format says."""

import numpy as np

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.graph.onnx_graph import F32, OnnxGraph
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.quantize.calibration.forward import SequenceEmitter


class QuantizedEmitter(SequenceEmitter):
    """Emits each quantized linear as (codes of x) x (codes of w), times both scales."""

    def linear(self, x: str, weight: str) -> str:
        """Multiply; the codes' products and sums are float32, as in the GPU's accumulators."""
        if not LinearWeight(self.checkpoint, weight).is_quantized:
            return super().linear(x, weight)
        return rounded_linear(self.graph, self.checkpoint, x, weight)[0]

    def cached(self, what: str, heads: str) -> str:
        """Round keys or values as the quantized cache stores them."""
        algo = self.checkpoint.quant.kv_cache_algo
        if algo is None:
            return heads
        is_int8 = algo == "INT8"
        if is_int8 or what in self.checkpoint:
            scale = self.graph.constant(self.checkpoint.floats(what).reshape(()))
        else:  # an FP8 cache may have no scales: loaders take 1
            scale = self.graph.scalar(1.0)
        rounded = (_int8 if is_int8 else _fp8)(self.graph, heads, scale)
        return self.graph.op("Mul", rounded, scale)


def rounded_linear(g: OnnxGraph, checkpoint: Checkpoint, x: str, weight: str) -> tuple[str, str]:
    """Emit a quantized linear; return its output, and what became of its input `x`."""
    linear = LinearWeight(checkpoint, weight)
    precision = checkpoint.quant.precision
    if precision is None or precision.is_weight_only:
        return g.op("MatMul", x, g.constant(linear.floats().T)), x
    codes = checkpoint[weight].map().astype(np.float32).T
    module = weight.removesuffix(".weight")
    smooth = None
    if f"{module}.pre_quant_scale" in checkpoint:
        smooth = g.constant(checkpoint.floats(f"{module}.pre_quant_scale"))
        x = g.op("Mul", x, smooth)
    if precision.inputs.is_dynamic:
        scale = _token_scale(g, x, precision.inputs.format)
    else:
        scale = g.constant(checkpoint.floats(f"{module}.input_scale").reshape(()))
    x = (_fp8 if precision.inputs.format is NumberFormat.FP8 else _int8)(g, x, scale)
    y = g.op("MatMul", x, g.constant(codes))
    y = g.op("Mul", g.op("Mul", y, scale), g.constant(linear.scale()))
    x = g.op("Mul", x, scale)
    return y, g.op("Div", x, smooth) if smooth else x


def _token_scale(g: OnnxGraph, x: str, code: NumberFormat) -> str:
    """Return amax / largest code of each token, [.., .., 1]; 1 for a token of zeros."""
    amax = g.op("ReduceMax", g.op("Abs", x), g.ints(-1), keepdims=1)
    scale = g.op("Div", amax, g.scalar(code.largest_code))
    return g.op("Where", g.op("Greater", amax, g.scalar(0.0)), scale, g.scalar(1.0))


def _fp8(g: OnnxGraph, x: str, scale: str) -> str:
    """Round x / scale to E4M3, saturating."""
    return g.op(
        "Cast", g.op("Cast", g.op("Div", x, scale), to=NumberFormat.FP8.onnx, saturate=1), to=F32
    )


def _int8(g: OnnxGraph, x: str, scale: str) -> str:
    """Round x / scale to int8, saturating."""
    rounded = g.op("Round", g.op("Div", x, scale))
    return g.op("Clip", rounded, g.scalar(-128.0), g.scalar(127.0))
