"""Emits the model's description as a program of fused operations."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nemotrt.engines.backends.native.program.builder import (
    LAST,
    LOGITS,
    RESIDUAL,
    ProgramBuilder,
    Value,
)
from nemotrt.engines.backends.native.program.options import NativeOptions, StateFormat
from nemotrt.engines.backends.native.program.packed_weights import PackedWeights
from nemotrt.engines.backends.native.program.program import OperationKind, Program, View
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.model_config import MambaConfig, ModelConfig, MoeConfig
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.rotary import rotary_tables
from nemotrt.engines.model.tensor_names import Block

Kind = OperationKind
SCALE_BYTES = 4  # of a row of codes, behind them


class NativeEmitter:
    """Packs weights and appends operations as the description names them."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        max_seq_len: int,
        precision: Precision,
        options: NativeOptions,
    ) -> None:
        """Start an empty program whose weights go to `folder`."""
        self.options = options
        self.checkpoint = checkpoint
        self.config: ModelConfig = checkpoint.config
        self.max_seq_len = max_seq_len
        self.weights = PackedWeights(checkpoint, folder, precision)
        self.builder = ProgramBuilder(self.weights)

    def program(self) -> Program:
        """Return the finished program."""
        return self.builder.program(self.config.vocab_size, self.max_seq_len)

    def embed(self, weight: str) -> Value:
        """Start the residual stream."""
        target = self.builder.whole(RESIDUAL, self.config.hidden_size)
        return self.builder.emit(Kind.EMBED, target, tensors=(self.weights.table(weight),))

    def rms_norm(self, x: Value, weight: str, eps: float) -> Value:
        """Normalize into the next linear's operand."""
        tensors = (self.weights.vector(weight),)
        return self.builder.row_operation(Kind.NORM, x, tensors=tensors, reals=(eps,))

    def linear(self, x: Value, weight: str) -> Value:
        """Hold the product back until its target is known."""
        width = self.checkpoint[weight].shape[0]
        return Value(width, x.rows, linear_input=x, weight=weight)

    def router(self, x: Value, weight: str) -> Value:
        """As any linear, of float32 weights."""
        return replace(self.linear(x, weight), is_exact=True)

    def split(self, x: Value, sizes: Sequence[int]) -> Sequence[Value]:
        """Name parts of the columns."""
        view, parts, column = self.builder.view(x), [], 0
        for size in sizes:
            part = View(buffer=view.buffer, column=view.column + column, width=size)
            parts.append(Value(size, x.rows, view=part))
            column += size
        return parts

    def add(self, x: Value, y: Value) -> Value:
        """Let `y` add to the residual stream, which ends the block; hold a sum inside one back."""
        if x.view is None:
            return Value(x.width, x.rows, terms=(x, y))
        self.builder.add_into(y, x.view)
        self.builder.end_block()
        return replace(x)

    def relu2(self, x: Value) -> Value:
        """Square the positive part into the next linear's operand."""
        return self.builder.row_operation(Kind.RELU2, x)

    def swiglu(self, gate: Value, up: Value) -> Value:
        """Write silu(gate) * up into the next linear's operand."""
        return self.builder.row_operation(Kind.SWIGLU, gate, up)

    def causal_conv(self, x: Value, block: Block, mamba: MambaConfig) -> Value:
        """Convolve in place; the weight is stored [kernel, channels]."""
        name = block.name("conv1d.weight")
        weight = self.weights.values(name, self.checkpoint.floats(name)[:, 0, :].T)
        bias = self.weights.vector(block.name("conv1d.bias"))
        state = self.builder.state(f"conv_{block.index}", mamba.conv_kernel - 1, mamba.conv_dim)
        return self.builder.emit(
            Kind.CONV,
            self.builder.view(x),
            x,
            tensors=(weight, bias),
            states=(state,),
            sizes=(mamba.conv_kernel,),
        )

    def state_space(
        self, x: Value, b: Value, c: Value, dt: Value, block: Block, mamba: MambaConfig
    ) -> Value:
        """Advance the state token by token."""
        rate = block.name("A_log")
        tensors = (
            self.weights.vector(block.name("dt_bias")),
            self.weights.values(rate, -np.exp(self.checkpoint.floats(rate))),
            self.weights.vector(block.name("D")),
        )
        shape = (mamba.num_heads, mamba.head_dim, mamba.state_size)
        return self.builder.emit(
            Kind.SCAN,
            self.builder.columns(mamba.inner_size),
            *(x, b, c, dt),
            tensors=tensors,
            states=(self.builder.state(f"ssm_{block.index}", *shape, kind=self.options.ssm_state),),
            sizes=(*shape, mamba.num_groups),
            reals=mamba.finite_time_step_limit,
        )

    def gated_norm(self, x: Value, gate: Value, weight: str, num_groups: int, eps: float) -> Value:
        """Gate and normalize into the next linear's operand."""
        return self.builder.row_operation(
            Kind.GATED_NORM,
            *(x, gate),
            tensors=(self.weights.vector(weight),),
            sizes=(num_groups,),
            reals=(eps,),
        )

    def attention(self, q: Value, k: Value, v: Value, block: Block, config: ModelConfig) -> Value:
        """Head norms, rotary, cache and attention as one operation."""
        norms = [
            self.weights.vector(block.name(f"{letter}_norm.weight")) if config.has_qk_norm else None
            for letter in "qk"
        ]
        heads, kv_heads, depth = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        kind = self.options.kv_cache
        row = depth + (SCALE_BYTES if kind is StateFormat.INT8 else 0)
        states = [
            self.builder.state(
                f"{letter}_cache_{block.index}", kv_heads, self.max_seq_len, row, kind=kind
            )
            for letter in "kv"
        ]
        placed = [Value(x.width, view=self.builder.view(x)) for x in (q, k, v)]
        return self.builder.emit(
            Kind.ATTENTION,
            self.builder.columns(config.q_size),
            *placed,
            tensors=(*norms, *self._rotary()),
            states=tuple(states),
            sizes=(heads, kv_heads, depth),
            reals=(config.norm_eps,),
        )

    def route(self, scores: Value, block: Block, moe: MoeConfig) -> Value:
        """Write each token's experts and their weights, side by side."""
        return self.builder.emit(
            Kind.ROUTE,
            self.builder.columns(2 * moe.num_chosen),
            scores,
            tensors=(self.weights.vector(block.name("gate.e_score_correction_bias")),),
            sizes=(moe.num_chosen, moe.num_groups, moe.num_chosen_groups, int(moe.is_normalized)),
            reals=(moe.scaling_factor,),
        )

    def experts(self, x: Value, choice: Value, block: Block, moe: MoeConfig) -> Value:
        """Two linears of each token's experts, with columns for each of them, then their mix."""
        rows = Value(x.width, x.rows, view=self.builder.view(x))
        for leaf in ("up_proj", "down_proj"):
            names = block.experts(leaf, moe.num_experts)
            columns = self.checkpoint[names[0]].shape[1]
            weight, scale, segment = self.weights.experts(names)
            rows = self.builder.emit(
                Kind.EXPERTS,
                self.builder.columns(moe.num_chosen * segment),
                *(rows, choice),
                tensors=(weight, scale),
                sizes=(moe.num_experts, moe.num_chosen, columns, int(leaf == "up_proj")),
            )
        sizes = (moe.num_chosen, 0)
        return self.builder.row_operation(Kind.MIX, rows, choice, width=x.width, sizes=sizes)

    def _rotary(self) -> tuple[int | None, int | None]:
        """Return the tables of cosines and sines, [max_seq_len, head_dim / 2], if there are any."""
        if self.config.rope_theta is None:
            return None, None
        cosine, sine = rotary_tables(self.config, self.max_seq_len)
        return self.weights.values("cosine", cosine), self.weights.values("sine", sine)

    def last_token(self, x: Value) -> Value:
        """Keep the rows whose logits are wanted."""
        target = self.builder.whole(LAST, x.width)
        return replace(self.builder.emit(Kind.LAST_TOKEN, target, x), rows="sequences")

    def logits(self, x: Value) -> None:
        """Let the head write the caller's logits."""
        self.builder.linear_into(x, self.builder.whole(LOGITS, x.width), adds=False)
