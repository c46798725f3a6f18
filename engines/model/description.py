"""The one description of both architectures, written against an emitter of operations.

Every backend's graph or program comes from `describe`; an emitter decides how one operation is
expressed for its target. Values are [batch, tokens, width] throughout.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from nemotrt.engines.model.model_config import (
    Activation,
    LayerKind,
    MambaConfig,
    ModelConfig,
    MoeConfig,
)
from nemotrt.engines.model.tensor_names import Block, blocks, model_names

V = TypeVar("V")


class Emitter(Protocol[V]):
    """The operations that a target must express; weights are given by their hub names."""

    def embed(self, weight: str) -> V:
        """Look up the new tokens: [batch, tokens, hidden]."""

    def rms_norm(self, x: V, weight: str, eps: float) -> V:
        """Normalize the last axis and multiply by the weight."""

    def linear(self, x: V, weight: str) -> V:
        """Multiply by the transpose of the weight [out, in]."""

    def router(self, x: V, weight: str) -> V:
        """Multiply as `linear`, in float32 whatever the target computes in."""

    def split(self, x: V, sizes: Sequence[int]) -> Sequence[V]:
        """Cut the last axis into parts of these sizes."""

    def add(self, x: V, y: V) -> V:
        """Add elementwise."""

    def relu2(self, x: V) -> V:
        """Square the positive part."""

    def swiglu(self, gate: V, up: V) -> V:
        """Multiply silu(gate) by up."""

    def causal_conv(self, x: V, block: Block, mamba: MambaConfig) -> V:
        """Depthwise causal convolution with carried window, bias and SiLU: [.., .., conv_dim]."""

    def state_space(self, x: V, b: V, c: V, dt: V, block: Block, mamba: MambaConfig) -> V:
        """Mamba-2's recurrence with carried state, plus D * x: float32 [.., .., inner].

        Args:
            x: [.., .., heads * head_dim].
            b: [.., .., groups * state].
            c: [.., .., groups * state].
            dt: [.., .., heads], before bias and softplus.
            block: the layer, which names A_log, D, dt_bias and the state.
            mamba: its dimensions.
        """

    def gated_norm(self, x: V, gate: V, weight: str, num_groups: int, eps: float) -> V:
        """Multiply by silu(gate), RMS-normalize each of `num_groups` parts, apply the weight."""

    def attention(self, q: V, k: V, v: V, block: Block, config: ModelConfig) -> V:
        """Causal grouped-query attention with a KV cache, head norms and rotary if configured."""

    def route(self, scores: V, block: Block, moe: MoeConfig) -> V:
        """Choose each token's experts, and their weights, by the router's scores.

        The scores become probabilities by a sigmoid. With the bias of the block added, the best
        groups are chosen by their two best experts, and the best experts of those. The weights are
        the probabilities without the bias. All of it is float32.
        """

    def experts(self, x: V, choice: V, block: Block, moe: MoeConfig) -> V:
        """Add up down(relu(up(x))^2) of the experts that `choice` has, by their weights."""

    def last_token(self, x: V) -> V:
        """Keep each sequence's last new token: [batch, 1, width]."""

    def logits(self, x: V) -> None:
        """Make `x` the graph's float32 result."""


def describe(config: ModelConfig, emitter: Emitter[V]) -> None:
    """Emit the whole model: embeddings, residual blocks, final norm, head."""
    names = model_names(config)
    x = emitter.embed(names.embeddings)
    for block in blocks(config):
        y = emitter.rms_norm(x, block.norm, config.norm_eps)
        x = emitter.add(x, BLOCKS[block.kind](config, block, y, emitter))
    x = emitter.rms_norm(emitter.last_token(x), names.final_norm, config.norm_eps)
    emitter.logits(emitter.linear(x, names.lm_head))


def _mamba(config: ModelConfig, block: Block, x: V, emitter: Emitter[V]) -> V:
    """Mamba-2: project, convolve, scan, gate, project."""
    mamba = config.mamba
    assert mamba is not None  # the reader builds it whenever a Mamba layer exists
    projected = emitter.linear(x, block.name("in_proj.weight"))
    gate, xbc, dt = emitter.split(projected, (mamba.inner_size, mamba.conv_dim, mamba.num_heads))
    xbc = emitter.causal_conv(xbc, block, mamba)
    group_width = mamba.num_groups * mamba.state_size
    inner, b, c = emitter.split(xbc, (mamba.inner_size, group_width, group_width))
    y = emitter.state_space(inner, b, c, dt, block, mamba)
    y = emitter.gated_norm(y, gate, block.name("norm.weight"), mamba.num_groups, config.norm_eps)
    return emitter.linear(y, block.name("out_proj.weight"))


def _mlp(config: ModelConfig, block: Block, x: V, emitter: Emitter[V]) -> V:
    """Two-matrix relu^2 MLP, or three-matrix SwiGLU."""
    up = emitter.linear(x, block.name("up_proj.weight"))
    if config.activation is Activation.RELU2:
        inner = emitter.relu2(up)
    else:
        inner = emitter.swiglu(emitter.linear(x, block.name("gate_proj.weight")), up)
    return emitter.linear(inner, block.name("down_proj.weight"))


def _moe(config: ModelConfig, block: Block, x: V, emitter: Emitter[V]) -> V:
    """A router's choice of experts, in a latent space if there is one, and the shared expert."""
    moe = config.moe
    assert moe is not None  # the reader builds it whenever a block of experts exists
    shared = emitter.relu2(emitter.linear(x, block.name("shared_experts.up_proj.weight")))
    shared = emitter.linear(shared, block.name("shared_experts.down_proj.weight"))
    choice = emitter.route(emitter.router(x, block.name("gate.weight")), block, moe)
    if moe.latent_size is None:
        return emitter.add(shared, emitter.experts(x, choice, block, moe))
    latent = emitter.linear(x, block.name("fc1_latent_proj.weight"))
    routed = emitter.experts(latent, choice, block, moe)
    return emitter.add(shared, emitter.linear(routed, block.name("fc2_latent_proj.weight")))


def _attention(config: ModelConfig, block: Block, x: V, emitter: Emitter[V]) -> V:
    """Grouped-query attention between its projections."""
    q, k, v = (emitter.linear(x, block.name(f"{name}_proj.weight")) for name in "qkv")
    y = emitter.attention(q, k, v, block, config)
    return emitter.linear(y, block.name("o_proj.weight"))


BLOCKS = {
    LayerKind.MAMBA: _mamba,
    LayerKind.MLP: _mlp,
    LayerKind.ATTENTION: _attention,
    LayerKind.MOE: _moe,
}
