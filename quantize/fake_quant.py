"""A quantized checkpoint's own arithmetic in float32: activations rounded as the format says."""

import numpy as np
from onnx import TensorProto

from nemotrt.engines.emitters.standard import F32
from nemotrt.engines.linear_weight import LinearWeight
from nemotrt.engines.quant_config import QuantAlgo
from nemotrt.quantize.forward import SequenceEmitter
from nemotrt.quantize.kernels import FP8_MAX

E4M3 = int(TensorProto.FLOAT8E4M3FN)


class QuantizedEmitter(SequenceEmitter):
    """Emits each quantized linear as (codes of x) x (codes of w), times both scales."""

    def linear(self, x: str, weight: str) -> str:
        """Multiply; the codes' products and sums are float32, as in the GPU's accumulators."""
        linear = LinearWeight(self.checkpoint, weight)
        algo = self.checkpoint.quant.algo
        if not linear.is_quantized or algo is QuantAlgo.INT8_WEIGHT_ONLY:
            return super().linear(x, weight)
        g = self.graph
        codes = self.checkpoint[weight].map().astype(np.float32).T
        module = weight.removesuffix(".weight")
        if f"{module}.pre_quant_scale" in self.checkpoint:
            x = g.op("Mul", x, g.constant(self.checkpoint.floats(f"{module}.pre_quant_scale")))
        if algo is QuantAlgo.FP8_PER_CHANNEL:
            scale = self._token_scale(x)
        else:
            scale = g.constant(self.checkpoint.floats(f"{module}.input_scale").reshape(()))
        x = self._int8(x, scale) if algo is QuantAlgo.INT8_SMOOTHQUANT else self._fp8(x, scale)
        y = g.op("MatMul", x, g.constant(codes, weight))
        return g.op("Mul", g.op("Mul", y, scale), g.constant(linear.scale()))

    def cached(self, what: str, heads: str) -> str:
        """Round keys or values as the quantized cache stores them."""
        if self.checkpoint.quant.kv_cache_algo is None:
            return heads
        scale = self.graph.constant(self.checkpoint.floats(what).reshape(()))
        is_int8 = self.checkpoint.quant.kv_cache_algo == "INT8"
        rounded = self._int8(heads, scale) if is_int8 else self._fp8(heads, scale)
        return self.graph.op("Mul", rounded, scale)

    def _token_scale(self, x: str) -> str:
        """Return amax / 448 of each token, [.., .., 1]; 1 for a token of zeros."""
        g = self.graph
        amax = g.op("ReduceMax", g.op("Abs", x), g.ints(-1), keepdims=1)
        scale = g.op("Div", amax, g.scalar(FP8_MAX))
        return g.op("Where", g.op("Greater", amax, g.scalar(0.0)), scale, g.scalar(1.0))

    def _fp8(self, x: str, scale: str) -> str:
        """Round x / scale to E4M3, saturating."""
        g = self.graph
        return g.op("Cast", g.op("Cast", g.op("Div", x, scale), to=E4M3, saturate=1), to=F32)

    def _int8(self, x: str, scale: str) -> str:
        """Round x / scale to int8, saturating."""
        g = self.graph
        rounded = g.op("Round", g.op("Div", x, scale))
        return g.op("Clip", rounded, g.scalar(-128.0), g.scalar(127.0))
