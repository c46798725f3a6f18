"""One Mamba layer's operands, and what its convolution and scan give: float64, token by token."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims

BF16 = ml_dtypes.bfloat16


@dataclass
class Layer:
    """One Mamba layer's operands, [batch, tokens, ..]."""

    dims: KernelDims
    projected: np.ndarray
    window: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    state: np.ndarray
    dt_bias: np.ndarray
    decay: np.ndarray
    skip: np.ndarray
    lengths: np.ndarray
    limits: tuple[float, float] = (0.0, 3e38)

    @property
    def tokens(self) -> int:
        return self.projected.shape[1]


def draw(dims: KernelDims, lengths: list[int], tokens: int, seed: int = 0) -> Layer:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

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


def conv_oracle(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    dims, inner = layer.dims, layer.dims.inner_size
    x = layer.projected[..., inner : inner + dims.channels]
    full = np.concatenate([layer.window, x], axis=1).astype(np.float64)
    taps = layer.weight.astype(np.float64)
    y = layer.bias.astype(np.float64) + sum(
        full[:, k : k + layer.tokens] * taps[:, 0, k] for k in range(dims.conv_kernel)
    )
    moved = [full[i, n : n + dims.conv_kernel - 1] for i, n in enumerate(layer.lengths)]
    return (y / (1 + np.exp(-y))).astype(BF16), np.array(moved).astype(BF16)


def scan_oracle(layer: Layer, xbc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    dims, inner, heads = layer.dims, layer.dims.inner_size, layer.dims.num_heads
    width = dims.num_groups * dims.state_size
    xbc = xbc.astype(np.float64)
    batch = len(layer.lengths)
    x = xbc[..., :inner].reshape(batch, -1, heads, dims.head_dim)
    b, c = (
        xbc[..., start : start + width]
        .reshape(batch, -1, dims.num_groups, dims.state_size)
        .repeat(heads // dims.num_groups, axis=2)
        for start in (inner, inner + width)
    )
    raw = layer.projected[..., inner + dims.channels :].astype(np.float64) + layer.dt_bias
    dt = np.clip(np.logaddexp(0, raw), *layer.limits)
    state, y = layer.state.astype(np.float64), np.empty(x.shape)
    for i, length in enumerate(layer.lengths):
        for t in range(layer.tokens):
            step = dt[i, t] if t < length else np.zeros(heads)
            added = (step[:, None] * x[i, t])[..., None] * b[i, t][:, None]
            state[i] = state[i] * np.exp(step * layer.decay)[:, None, None] + added
            y[i, t] = (state[i] * c[i, t][:, None]).sum(-1) + layer.skip[:, None] * x[i, t]
    return y.reshape(batch, -1, inner), state


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, as a part of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
