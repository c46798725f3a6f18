"""Plain ONNX, opset 24: what any ONNX runtime executes, and the oracle of the other emitters.

One call feeds every sequence up to T new tokens and carries all state in and out:

    input_ids [B, T] int64; lengths [B] new tokens; past [B] tokens already cached
    conv_i -> conv_out_i  [B, K-1, conv_dim]
    ssm_i -> ssm_out_i  [B, heads, head_dim, state], always float32
    k_cache_i, v_cache_i -> .._out_i  [B, kv_heads, S, head_dim]
    logits [B, 1, vocab] float32, of each sequence's last new token

A padding token (t >= lengths) has dt = 0, which leaves the SSM state as it is.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.graph.experts import choose, each_expert
from nemotrt.engines.graph.onnx_graph import F32, OnnxGraph
from nemotrt.engines.graph.ssd_scan import Chunk, scan, state_shape
from nemotrt.engines.graph.step_inputs import StepInputs
from nemotrt.engines.model.model_config import MambaConfig, ModelConfig, MoeConfig
from nemotrt.engines.model.rotary import rotary_tables
from nemotrt.engines.model.tensor_names import Block


def transposed(weight: str) -> str:
    """Return the name of a weight's transpose: a tied embedding is in the graph both ways."""
    return f"{weight}.transposed"


class StandardEmitter(StepInputs):
    """Emits the description as ONNX's own operators, computing in `compute` (float32 here)."""

    compute = F32
    is_first_apart = False  # see ssd_scan.scan
    logits_rows: int | str = 1  # of each sequence; a name where the caller says how many

    def __init__(self, checkpoint: Checkpoint, graph: OnnxGraph, max_seq_len: int) -> None:
        """Declare the inputs and the masks that every layer shares."""
        self.checkpoint = checkpoint
        self.config: ModelConfig = checkpoint.config
        self.max_seq_len = max_seq_len
        super().__init__(graph)

    # Weights

    def floats(self, weight: str) -> npt.NDArray[Any]:
        """Return a weight in the type that this target computes in."""
        return self.checkpoint.floats(weight).astype(helper.tensor_dtype_to_np_dtype(self.compute))

    def vector(self, weight: str) -> str:
        """Return a norm's or bias's weight as a constant."""
        return self.graph.constant(self.floats(weight), weight)

    def cast(self, x: str, dtype: int) -> str:
        """Convert `x` from the compute type, or to it; nothing where they are the same."""
        return x if self.compute == F32 else self.graph.op("Cast", x, to=dtype)

    # Operations of the description

    def embed(self, weight: str) -> str:
        """Gather rows of the embedding table."""
        return self.graph.op("Gather", self.graph.constant(self.floats(weight), weight), self.ids)

    def rms_norm(self, x: str, weight: str, eps: float) -> str:
        """RMSNormalization over the last axis."""
        name = weight.removesuffix(".weight")
        scale = self.vector(weight)
        return self.graph.op("RMSNormalization", x, scale, name=name, axis=-1, epsilon=eps)

    def linear(self, x: str, weight: str) -> str:
        """MatMul with the transposed weight; a quantized weight is dequantized at export."""
        values = LinearWeight(self.checkpoint, weight).floats().T
        return self.graph.op("MatMul", x, self.graph.constant(values, transposed(weight)))

    def router(self, x: str, weight: str) -> str:
        """MatMul in float32."""
        values = self.checkpoint.floats(weight).T
        return self.graph.op(
            "MatMul", self.cast(x, F32), self.graph.constant(values, transposed(weight))
        )

    def split(self, x: str, sizes: Sequence[int]) -> Sequence[str]:
        """Split of the last axis."""
        return self.graph.split(x, sizes)

    def add(self, x: str, y: str) -> str:
        """Add."""
        return self.graph.op("Add", x, y)

    def relu2(self, x: str) -> str:
        """Relu, squared."""
        positive = self.graph.op("Relu", x)
        return self.graph.op("Mul", positive, positive)

    def silu(self, x: str) -> str:
        """X * sigmoid(x)."""
        return self.graph.op("Mul", x, self.graph.op("Sigmoid", x))

    def swiglu(self, gate: str, up: str) -> str:
        """silu(gate) * up."""
        return self.graph.op("Mul", self.silu(gate), up)

    def causal_conv(self, x: str, block: Block, mamba: MambaConfig) -> str:
        """Conv over the carried window and the new tokens; the window moves by `lengths`."""
        g, channels, window = self.graph, mamba.conv_dim, mamba.conv_kernel - 1
        shape: list[int | str] = ["B", window, channels]
        past = g.input(f"conv_{block.index}", self.compute, shape)
        full = g.op("Concat", past, x, axis=1)  # [B, K-1+T, C]
        rows = g.op("Add", self.lengths_column, g.constant(np.arange(window)[None]))  # [B, K-1]
        extent = g.op("Concat", self.batch, g.ints(window, channels), axis=0)
        index = g.op("Expand", g.op("Unsqueeze", rows, g.ints(2)), extent)
        g.op("GatherElements", full, index, name=f"conv_out_{block.index}", axis=1)
        g.output(f"conv_out_{block.index}", self.compute, shape)
        return self.convolved(full, block, mamba)

    def convolved(self, x: str, block: Block, mamba: MambaConfig, **attributes: Any) -> str:
        """Conv of each channel with its kernel, bias and SiLU; K - 1 tokens are lost."""
        g = self.graph
        y = g.op(
            "Conv",
            g.op("Transpose", x, perm=[0, 2, 1]),
            self.vector(block.name("conv1d.weight")),
            self.vector(block.name("conv1d.bias")),
            name=block.name("conv1d"),
            group=mamba.conv_dim,
            kernel_shape=[mamba.conv_kernel],
            **attributes,
        )
        return self.silu(g.op("Transpose", y, perm=[0, 2, 1]))

    def time_step(self, dt: str, block: Block, mamba: MambaConfig) -> str:
        """Return softplus(dt + bias), limited if the model says so, in float32: [B, T, heads]."""
        g = self.graph
        bias = g.constant(self.checkpoint.floats(block.name("dt_bias")))
        dt = g.op("Softplus", g.op("Add", self.cast(dt, F32), bias))
        if mamba.is_dt_limited:
            dt = g.op("Clip", dt, *map(g.scalar, mamba.finite_time_step_limit))
        return dt

    def decay_rate(self, block: Block) -> str:
        """Return A = -exp(A_log), float32 [heads]."""
        return self.graph.constant(-np.exp(self.checkpoint.floats(block.name("A_log"))))

    def skip_weight(self, block: Block) -> str:
        """Return D as float32 [heads, 1]."""
        return self.graph.constant(self.checkpoint.floats(block.name("D"))[:, None])

    def state_space(self, x: str, b: str, c: str, dt: str, block: Block, mamba: MambaConfig) -> str:
        """The scan of a chunk in float32, plus D * x."""
        g = self.graph
        x, b, c = (self.cast(value, F32) for value in (x, b, c))
        dt = g.op("Mul", self.time_step(dt, block, mamba), g.op("Unsqueeze", self.valid, g.ints(2)))
        carried = g.input(f"ssm_{block.index}", F32, state_shape(mamba))
        y, state = self.scanned(x, b, c, dt, carried, block, mamba)
        g.op("Identity", state, name=f"ssm_out_{block.index}")
        g.output(f"ssm_out_{block.index}", F32, state_shape(mamba))
        return y

    def scanned(
        self, x: str, b: str, c: str, dt: str, carried: str, block: Block, mamba: MambaConfig
    ) -> tuple[str, str]:
        """Return the scan from a carried state, plus D * x, and the state after it."""
        g = self.graph
        heads = g.op("Reshape", x, g.ints(0, 0, mamba.num_heads, mamba.head_dim))
        chunk = Chunk(heads, b, c, dt, self.decay_rate(block), carried, self.lower)
        y, state = scan(g, mamba, chunk, is_first_apart=self.is_first_apart)
        y = g.op("Add", y, g.op("Mul", heads, self.skip_weight(block)))
        return g.op("Reshape", y, g.ints(0, 0, mamba.inner_size)), state

    def gated_norm(self, x: str, gate: str, weight: str, num_groups: int, eps: float) -> str:
        """Gate, RMSNormalization of each group with unit scale, then the weight, in float32."""
        g = self.graph
        width = self.checkpoint[weight].shape[0] // num_groups
        gated = g.op("Mul", x, self.silu(self.cast(gate, F32)))
        parts = g.op("Reshape", gated, g.ints(0, 0, num_groups, width))
        ones = g.constant(np.ones(width, np.float32))
        parts = g.op("RMSNormalization", parts, ones, axis=-1, epsilon=eps)
        scale = g.constant(self.checkpoint.floats(weight), weight)
        y = g.op("Mul", g.op("Reshape", parts, g.ints(0, 0, -1)), scale)
        return self.cast(y, self.compute)

    def attention(self, q: str, k: str, v: str, block: Block, config: ModelConfig) -> str:
        """TensorScatter the new keys and values, then Attention over the whole cache."""
        g = self.graph
        q_heads = self._heads(q, config.num_attention_heads, block, "q")
        k_heads = self._heads(k, config.num_key_value_heads, block, "k")
        v_heads = self._heads(v, config.num_key_value_heads, block, "v")
        keys = self._scatter(f"k_cache_{block.index}", k_heads)
        values = self._scatter(f"v_cache_{block.index}", v_heads)
        slots = g.constant(np.arange(self.max_seq_len).reshape(1, 1, 1, -1))
        visible = g.op("LessOrEqual", slots, g.op("Unsqueeze", self.positions, g.ints(1, 3)))
        y = g.op("Attention", q_heads, keys, values, visible, name=block.name("attention"))
        y = g.op("Transpose", y, perm=[0, 2, 1, 3])
        return g.op("Reshape", y, g.ints(0, 0, config.q_size))

    def _heads(self, x: str, num_heads: int, block: Block, letter: str) -> str:
        """Cut into heads, [B, heads, T, head_dim]; normalize and rotate queries and keys."""
        g = self.graph
        x = g.op("Reshape", x, g.ints(0, 0, num_heads, self.config.head_dim))
        if self.config.has_qk_norm and letter != "v":
            x = self.rms_norm(x, block.name(f"{letter}_norm.weight"), self.config.norm_eps)
        x = g.op("Transpose", x, perm=[0, 2, 1, 3])
        if self.config.rope_theta is None or letter == "v":
            return x
        cos, sin = self.rotary
        rotated = g.op("RotaryEmbedding", self.cast(x, F32), cos, sin, self.positions)
        return self.cast(rotated, self.compute)

    @cached_property
    def rotary(self) -> tuple[str, str]:
        """The constant cosine and sine tables, float32 [max_seq_len, head_dim / 2]."""
        cos, sin = rotary_tables(self.config, self.max_seq_len)
        return self.graph.constant(cos), self.graph.constant(sin)

    def _scatter(self, cache: str, new: str) -> str:
        """Write the new rows at `past` into a cache and return the whole of it."""
        g, config = self.graph, self.config
        num_heads, depth = config.num_key_value_heads, config.head_dim
        shape: list[int | str] = ["B", num_heads, self.max_seq_len, depth]
        g.input(cache, self.compute, shape)
        letter, _, index = cache.split("_")
        out = f"{letter}_cache_out_{index}"
        g.op("TensorScatter", cache, new, self.past, name=out, axis=2, mode="linear")
        g.output(out, self.compute, shape)
        return out

    def route(self, scores: str, block: Block, moe: MoeConfig) -> str:
        """Choose by TopK, in float32."""
        bias = self.graph.constant(
            self.checkpoint.floats(block.name("gate.e_score_correction_bias"))
        )
        return choose(self.graph, scores, bias, moe)

    def experts(self, x: str, choice: str, block: Block, moe: MoeConfig) -> str:
        """Two linears for each expert, over the rows of the tokens that chose it."""

        def run(number: int, rows: str) -> str:
            up, down = (
                block.name(f"experts.{number}.{leaf}_proj.weight") for leaf in ("up", "down")
            )
            return self.linear(self.relu2(self.linear(rows, up)), down)

        return each_expert(self.graph, x, choice, moe, run)

    def last_token(self, x: str) -> str:
        """Gather row lengths - 1 of each sequence."""
        g = self.graph
        row = g.op("Unsqueeze", g.op("Sub", self.lengths_column, g.ints(1)), g.ints(2))
        extent = g.op("Concat", self.batch, g.ints(1, self.config.hidden_size), axis=0)
        return g.op("GatherElements", x, g.op("Expand", row, extent), axis=1)

    def logits(self, x: str) -> None:
        """Name the result `logits`, in float32."""
        self.graph.op("Cast", x, to=F32, name="logits")
        self.graph.output("logits", F32, ["B", self.logits_rows, self.config.vocab_size])
