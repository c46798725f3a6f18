"""One Mamba layer's operands, and what its convolution and scan give: float64, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims

BF16 = ml_dtypes.bfloat16
Array = npt.NDArray[Any]


@dataclass
class Layer:
    """One Mamba layer's operands, [batch, tokens, ..]."""

    dims: KernelDims
    projected: Array
    window: Array
    weight: Array
    bias: Array
    state: Array
    dt_bias: Array
    decay: Array
    skip: Array
    lengths: Array
    limits: tuple[float, float] = (0.0, 3e38)

    @property
    def tokens(self) -> int:
        """New tokens of each sequence, with padding."""
        return int(self.projected.shape[1])


def draw(dims: KernelDims, lengths: Sequence[int], tokens: int, seed: int = 0) -> Layer:
    """Return a layer of random operands; a sequence has as many of the tokens as its length."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, np.float32)

    batch, heads = len(lengths), dims.num_heads
    return Layer(
        dims,
        projected=normal(batch, tokens, dims.width).astype(BF16),
        window=normal(batch, dims.conv_kernel - 1, dims.channels).astype(BF16),
        weight=(normal(dims.channels, 1, dims.conv_kernel) / 2).astype(BF16),
        bias=normal(dims.channels).astype(BF16),
        state=normal(batch, heads, dims.head_dim, dims.state_size),
        dt_bias=normal(heads) - 1,
        decay=-np.exp(normal(heads)),
        skip=normal(heads),
        lengths=np.array(lengths, np.int64),
    )


def conv_oracle(layer: Layer) -> tuple[Array, Array]:
    """Return what the convolution gives, and the window after it, both in bfloat16."""
    dims, inner = layer.dims, layer.dims.inner_size
    x = layer.projected[..., inner : inner + dims.channels]
    full = np.concatenate([layer.window, x], axis=1).astype(np.float64)
    taps = layer.weight.astype(np.float64)
    y = layer.bias.astype(np.float64) + sum(
        full[:, k : k + layer.tokens] * taps[:, 0, k] for k in range(dims.conv_kernel)
    )
    moved = [full[i, n : n + dims.conv_kernel - 1] for i, n in enumerate(layer.lengths)]
    return (y / (1 + np.exp(-y))).astype(BF16), np.array(moved).astype(BF16)


def scan_oracle(layer: Layer, xbc: Array, every: int = 1) -> tuple[Array, Array]:
    """Return y and the state after the tokens, of every so many heads, which know no other."""
    dims, inner, heads = layer.dims, layer.dims.inner_size, layer.dims.num_heads
    some = slice(None, None, every)
    width = dims.num_groups * dims.state_size
    xbc = xbc.astype(np.float64)
    batch = len(layer.lengths)
    x = xbc[..., :inner].reshape(batch, -1, heads, dims.head_dim)[:, :, some]
    b, c = (
        xbc[..., start : start + width]
        .reshape(batch, -1, dims.num_groups, dims.state_size)
        .repeat(heads // dims.num_groups, axis=2)[:, :, some]
        for start in (inner, inner + width)
    )
    raw = layer.projected[..., inner + dims.channels :].astype(np.float64) + layer.dt_bias
    dt = np.clip(np.logaddexp(0, raw), *layer.limits)[..., some]
    decay, skip = layer.decay[some], layer.skip[some, None]
    state, y = layer.state[:, some].astype(np.float64), np.empty(x.shape)
    for i, length in enumerate(layer.lengths):
        for t in range(layer.tokens):
            step = dt[i, t] if t < length else np.zeros(len(decay))
            added = (step[:, None] * x[i, t])[..., None] * b[i, t][:, None]
            state[i] = state[i] * np.exp(step * decay)[:, None, None] + added
            y[i, t] = (state[i] * c[i, t][:, None]).sum(-1) + skip * x[i, t]
    return y.reshape(batch, layer.tokens, -1), state


def worst(found: Array, expected: Array) -> float:
    """Return the largest difference, as a part of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
