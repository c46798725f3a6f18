"""ONNX Runtime's fused operators for its CPU provider, each equal to the standard form.

    input_ids [B, T] int64; past [B] int64: every sequence has T new tokens (no padding)
    num_logits [1] int64, default 1: how many of them, from the last one, bring a row of logits
    conv_i [B, K-1, conv_dim]; ssm_i [B, heads, state, head_dim]  (head_dim last, unlike standard)
    k_cache_i, v_cache_i [B, kv_heads, S, head_dim], S chosen by the caller

Each state is read and written by one node, so a caller may bind input and output to one buffer.
Source: com.microsoft operator schemas of ONNX Runtime 1.32; equality measured by the tests.
"""

import numpy as np
from ml_dtypes import bfloat16
from onnx import TensorProto

from nemotrt.engines.checkpoint.checkpoint import ALL, Checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.graph.onnx_graph import F32, MICROSOFT, NUM_LOGITS, OnnxGraph
from nemotrt.engines.graph.standard import StandardEmitter, transposed
from nemotrt.engines.model.model_config import MambaConfig, ModelConfig
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import Block

INT32 = int(TensorProto.INT32)
# MatMulNBits rounds its input to int8 per block; smaller blocks are closer, and cost scales.
INT8_BLOCKS = (64, 32, 16)
INT4_BLOCK = 32
FLOAT_INPUT = 1  # accuracy_level
INT8_INPUT = 4  # accuracy_level: int8 input; 1 (float32 input) ran 130 times slower at batch 1


class OnnxRuntimeEmitter(StandardEmitter):
    """Emits fused contrib operators; weights in `precision`, arithmetic in float32."""

    logits_rows = "L"

    def __init__(
        self,
        checkpoint: Checkpoint,
        graph: OnnxGraph,
        max_seq_len: int,
        precision: Precision = Precision.FP32,
        *,
        is_exact: bool = False,
    ) -> None:
        """Prepare; `is_exact` dequantizes codes at load instead of rounding inputs."""
        self.precision = precision
        self.is_exact = is_exact
        super().__init__(checkpoint, graph, max_seq_len)

    def _declare_inputs(self) -> None:
        """Declare input_ids and past; every sequence has as many new tokens as input_ids."""
        self.ids = self.graph.input("input_ids", TensorProto.INT64, ["B", "T"])
        self.past = self.graph.input("past", TensorProto.INT64, ["B"])

    def _declare_positions(self) -> None:
        """Compute what GroupQueryAttention asks for: lengths per sequence, and their maximum."""
        g = self.graph
        tokens = g.op(
            "Cast", g.op("Slice", g.op("Shape", self.ids), g.ints(1), g.ints(2)), to=INT32
        )
        total = g.op("Add", g.op("Cast", self.past, to=INT32), tokens)
        self.last_position = g.op("Sub", total, g.constant(np.ones(1, np.int32)))
        self.max_total = g.op("ReduceMax", total, keepdims=0)
        self.new_tokens = g.op("Expand", tokens, g.op("Shape", self.past))
        width = g.op("Squeeze", g.op("Cast", tokens, to=TensorProto.INT64))
        steps = g.op("Range", g.scalar(0, np.int64), width, g.scalar(1, np.int64))
        self.positions = g.op("Add", g.op("Unsqueeze", self.past, g.ints(1)), steps)  # [B, T]

    def embed(self, weight: str) -> str:
        """Gather; a bfloat16 table stays bfloat16 in memory."""
        if self.precision is Precision.FP32:
            return super().embed(weight)
        table = self.graph.constant(self.checkpoint.floats(weight).astype(bfloat16), weight)
        return self.graph.op("Cast", self.graph.op("Gather", table, self.ids), to=F32)

    def linear(self, x: str, weight: str) -> str:
        """MatMul, or MatMulNBits for int8 and int4 weights; the head keeps 16 bits."""
        linear = LinearWeight(self.checkpoint, weight)
        if self.precision is Precision.FP32:
            return super().linear(x, weight)
        if self.precision is Precision.INT8_WO and weight.endswith("_proj.weight"):
            return self._int8_linear(x, linear)
        is_int4 = linear.has_int4 or self.checkpoint.quant.precision is None
        if self.precision is Precision.INT4_WO and weight.endswith("_proj.weight") and is_int4:
            return self._int4_linear(x, linear)
        values = linear.floats().T.astype(bfloat16)
        stored = self.graph.constant(values, transposed(weight))
        return self.graph.op("MatMul", x, self.graph.op("Cast", stored, to=F32))

    def _int8_linear(self, x: str, linear: LinearWeight) -> str:
        """Weight codes per output channel; the scale is repeated for each block of inputs."""
        g = self.graph
        codes, scale = linear.int8()
        rows, columns = codes.shape
        block = next((size for size in INT8_BLOCKS if columns % size == 0), None)
        if self.is_exact or block is None:
            stored = g.constant(codes.T, transposed(linear.name))
            scales = g.constant(scale, f"{linear.name}_scale")
            # not DequantizeLinear: ONNX Runtime would fuse it into a MatMulNBits of int8 inputs
            return g.op("MatMul", x, g.op("Mul", g.op("Cast", stored, to=F32), scales))
        unsigned = (codes.view(np.uint8) ^ 0x80).reshape(rows, columns // block, block)
        return g.op(
            "MatMulNBits",
            x,
            g.constant(unsigned, linear.name),
            g.constant(np.repeat(scale, columns // block), f"{linear.name}_scale"),
            domain=MICROSOFT,
            K=columns,
            N=rows,
            bits=8,
            block_size=block,
            accuracy_level=INT8_INPUT,
        )

    def _int4_linear(self, x: str, linear: LinearWeight) -> str:
        """Weight codes + 8, two in a byte, with a scale for each INT4_BLOCK inputs of a channel."""
        g = self.graph
        codes, scales = linear.int4_groups(ALL, INT4_BLOCK)
        rows, columns = codes.shape
        padded = np.full((rows, scales.shape[1] * INT4_BLOCK), 8, np.uint8)
        np.add(codes, 8, out=padded[:, :columns], casting="unsafe")
        pairs = padded[:, ::2] | padded[:, 1::2] << 4
        return g.op(
            "MatMulNBits",
            x,
            g.constant(pairs.reshape(rows, scales.shape[1], -1), linear.name),
            g.constant(scales.reshape(-1), f"{linear.name}_scale"),
            domain=MICROSOFT,
            K=columns,
            N=rows,
            bits=4,
            block_size=INT4_BLOCK,
            accuracy_level=FLOAT_INPUT if self.is_exact else INT8_INPUT,
        )

    def causal_conv(self, x: str, block: Block, mamba: MambaConfig) -> str:
        """CausalConvWithState, channels last."""
        shape: list[int | str] = ["B", mamba.conv_kernel - 1, mamba.conv_dim]
        past = self.graph.input(f"conv_{block.index}", F32, shape)
        out = self.graph.output(f"conv_out_{block.index}", F32, shape)
        y, _ = self.graph.ops(
            "CausalConvWithState",
            x,
            self.vector(block.name("conv1d.weight")),
            self.vector(block.name("conv1d.bias")),
            past,
            names=[f"conv_y_{block.index}", out],
            domain=MICROSOFT,
            activation="silu",
            channels_last=1,
        )
        return y

    def state_space(self, x: str, b: str, c: str, dt: str, block: Block, mamba: MambaConfig) -> str:
        """LinearAttention with the gated rule: query C, key B, value dt * x, decay dt * A."""
        g = self.graph
        repeat = mamba.num_heads // mamba.num_groups
        dt = self.time_step(dt, block, mamba)
        heads = g.op("Reshape", x, g.ints(0, 0, mamba.num_heads, mamba.head_dim))
        value = g.op("Mul", heads, g.op("Unsqueeze", dt, g.ints(3)))
        key = g.op("Reshape", b, g.ints(0, 0, mamba.num_groups, 1, mamba.state_size))
        key = g.op("Expand", key, g.ints(1, 1, mamba.num_groups, repeat, mamba.state_size))
        shape: list[int | str] = ["B", mamba.num_heads, mamba.state_size, mamba.head_dim]
        past = g.input(f"ssm_{block.index}", F32, shape)
        out = g.output(f"ssm_out_{block.index}", F32, shape)
        y, _ = g.ops(
            "LinearAttention",
            c,
            g.op("Reshape", key, g.ints(0, 0, -1)),
            g.op("Reshape", value, g.ints(0, 0, mamba.inner_size)),
            past,
            g.op("Mul", dt, self.decay_rate(block)),
            names=[f"ssm_y_{block.index}", out],
            domain=MICROSOFT,
            q_num_heads=mamba.num_groups,
            kv_num_heads=mamba.num_heads,
            scale=1.0,
            update_rule="gated",
        )
        skip = g.op("Reshape", g.op("Mul", heads, self.skip_weight(block)), g.ints(0, 0, -1))
        return g.op("Add", y, skip)

    def attention(self, q: str, k: str, v: str, block: Block, config: ModelConfig) -> str:
        """GroupQueryAttention over the cache, after head norms and rotary if configured."""
        g, index = self.graph, block.index
        shape: list[int | str] = ["B", config.num_key_value_heads, "S", config.head_dim]
        caches = [g.input(f"{letter}_cache_{index}", F32, shape) for letter in "kv"]
        outs = [g.output(f"{letter}_cache_out_{index}", F32, shape) for letter in "kv"]
        # Its own head norms do not exist on the CPU, its own rotary wants head_dim % 16 == 0.
        if config.has_qk_norm:
            q = self._head_norm(q, block.name("q_norm.weight"))
            k = self._head_norm(k, block.name("k_norm.weight"))
        if config.rope_theta is not None:
            q = self._rotate(q, config.num_attention_heads)
            k = self._rotate(k, config.num_key_value_heads)
        unused = [""] * 9  # cos, sin, position_ids, bias, head_sink, k_, v_scale, q_, k_norm
        y, *_ = g.ops(
            "GroupQueryAttention",
            q,
            k,
            v,
            *caches,
            self.last_position,
            self.max_total,
            *unused,
            self.new_tokens,
            names=[f"attention_y_{index}", *outs],
            domain=MICROSOFT,
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
        )
        return y

    def _head_norm(self, x: str, weight: str) -> str:
        """RMS-normalize each head of [B, T, heads * head_dim]."""
        g = self.graph
        heads = g.op("Reshape", x, g.ints(0, 0, -1, self.config.head_dim))
        return g.op("Reshape", self.rms_norm(heads, weight, self.config.norm_eps), g.ints(0, 0, -1))

    def _rotate(self, x: str, num_heads: int) -> str:
        """Rotate each head of [B, T, heads * head_dim] by its position."""
        cos, sin = self.rotary
        return self.graph.op("RotaryEmbedding", x, cos, sin, self.positions, num_heads=num_heads)

    def last_token(self, x: str) -> str:
        """Slice the last positions, as many as the caller wants the logits of."""
        g = self.graph
        wanted = g.optional_input(NUM_LOGITS, np.ones(1, np.int64))
        return g.op("Slice", x, g.op("Neg", wanted), g.ints(2**31 - 1), g.ints(1))
