"""The Mamba plugins' kernels against Mamba-2's recurrence, launched as the plugins launch them."""

import ctypes
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nemotrt.build.check.kernels.device import Array, bytes_that_differ, fetch, put, timed
from nemotrt.build.check.kernels.mamba_layer import (
    BF16,
    Layer,
    conv_oracle,
    draw,
    scan_oracle,
    worst,
)
from nemotrt.build.check.result.rows import Comparison, KernelRow, Timing
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.kernel_dims import (
    KernelDims,
    Launch,
    conv_launch,
    scan_launch,
)
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary

SMALL = KernelDims(4, 20, 16, 2, 4)
NINE_B = KernelDims(128, 80, 128, 8, 4)  # Source: config.json of Nemotron-Nano-9B-v2
DENSE_TOKENS = 8  # with more, the CPU's reference takes every eighth head: all groups, in seconds
SCAN_BOUND = 2e-5
WHY_SCAN = "of the largest value: sums in float32 against float64, factors as two bfloat16"
WHY_STEP = "bfloat16 steps: rounded once, from a sum in float32"
WHY_SHARE = "of all values: a float32 sum beside the middle of two bfloat16 may round away"
WHY_COPY = "bytes: it is copied"


@dataclass(frozen=True, slots=True)
class MambaCase:
    """A layer of these widths, with that many new tokens of each sequence."""

    dims: KernelDims
    lengths: tuple[int, ...]

    @property
    def is_timed(self) -> bool:
        """Whether it is a step as it comes in real use: the real widths, nothing padded."""
        return self.dims == NINE_B and len(set(self.lengths)) == 1

    @property
    def name(self) -> str:
        """What the table calls it."""
        widths = "9B" if self.dims == NINE_B else "small"
        return widths if len(set(self.lengths)) == 1 else f"{widths}, ragged"


CASES = (
    MambaCase(SMALL, (1, 0, 1)),
    MambaCase(SMALL, (70, 33, 1, 0)),
    MambaCase(NINE_B, (1, 0, 1)),
    MambaCase(NINE_B, (100, 33)),
    *(MambaCase(NINE_B, (1,) * batch) for batch in (1, 8, 32, 128)),
    MambaCase(NINE_B, (512,)),
    MambaCase(NINE_B, (128,) * 4),
)


class DeviceLayer:
    """One layer's operands on the device, and the launches over them."""

    def __init__(self, cuda: Cuda, library: KernelLibrary, layer: Layer) -> None:
        """Copy the operands; what kernels write starts as NaN."""
        dims, batch, tokens = layer.dims, len(layer.lengths), layer.tokens
        self._cuda, self._library, self._layer = cuda, library, layer
        self.like = {
            "projected": layer.projected,
            "window": layer.window,
            "weight": layer.weight,
            "bias": layer.bias,
            "lengths": layer.lengths,
            "state": layer.state,
            "dt_bias": layer.dt_bias,
            "decay": layer.decay,
            "skip": layer.skip,
            "xbc": np.full((batch, tokens, dims.channels), np.nan, BF16),
            "y": np.full((batch, tokens, dims.inner_size), np.nan, np.float32),
        }
        self._at = {name: put(cuda, array) for name, array in self.like.items()}

    def fetch(self, name: str) -> Array:
        """Return an operand as it is now."""
        return fetch(self._cuda, self._at[name], self.like[name])

    def convolve(self) -> None:
        """Enqueue the convolution; the window moves in place."""
        dims, tokens = self._layer.dims, self._layer.tokens
        launch = conv_launch(dims.channels, dims.width, len(self._layer.lengths), tokens)
        names = ("projected", "window", "weight", "bias", "lengths", "xbc", "window")
        self._launch(launch, names, [ctypes.c_int(tokens)])

    def scan(self) -> None:
        """Enqueue the scan; the state changes in place."""
        dims, batch, tokens = self._layer.dims, len(self._layer.lengths), self._layer.tokens
        names = ("xbc", "projected", "state", "dt_bias", "decay", "skip", "lengths", "y", "state")
        more: list[Any] = [ctypes.c_float(limit) for limit in self._layer.limits]
        if tokens > 1:
            more.append(ctypes.c_int(tokens))
        launch = scan_launch(dims.num_heads, dims.head_dim, dims.decode_rows, batch, tokens)
        self._launch(launch, names, more)

    def _launch(self, launch: Launch, names: tuple[str, ...], more: list[Any]) -> None:
        arguments = [*(ctypes.c_void_p(self._at[name]) for name in names), *more]
        self._library.launch(*launch, arguments, self._cuda.stream)


def check_mamba(cuda: Cuda, library: KernelLibrary, case: MambaCase) -> list[KernelRow]:
    """Return what the convolution and the scan give, and how fast they are."""
    tokens = max(case.lengths)
    layer = draw(case.dims, case.lengths, tokens)
    on_gpu = DeviceLayer(cuda, library, layer)
    on_gpu.convolve()
    xbc, window = on_gpu.fetch("xbc"), on_gpu.fetch("window")
    on_gpu.scan()
    y, state = on_gpu.fetch("y"), on_gpu.fetch("state")
    size = {name: array.nbytes for name, array in on_gpu.like.items()}
    # of in_proj's result the convolution reads xBC alone
    moved = 2 * (size["xbc"] + size["window"]), size["xbc"] + size["y"] + 2 * size["state"]
    kernels = "causal_conv", "ssd_decode" if tokens == 1 else "ssd_prefill"
    found = compare_conv(layer, xbc, window), compare_scan(layer, xbc, y, state)
    rows = []
    for place, enqueue in enumerate((on_gpu.convolve, on_gpu.scan)):
        timing: Timing | None = timed(cuda, enqueue, moved[place]) if case.is_timed else None
        row = partial(KernelRow, kernels[place], case.name, len(case.lengths), tokens)
        rows.append(row(found[place], timing))
    return rows


def compare_conv(layer: Layer, xbc: Array, window: Array) -> tuple[Comparison, ...]:
    """Return how far the convolution is from the definition."""
    expected, moved = conv_oracle(layer)
    want, found = expected.astype(np.float32), xbc.astype(np.float32)
    steps = float((np.abs(found - want) / (np.abs(want) * 2**-7 + 1e-6)).max())
    others = 1 - float((xbc == expected).mean())
    return (
        Comparison("y", steps, 1, WHY_STEP),
        Comparison("y's other bits", others, 1e-3, WHY_SHARE),
        Comparison("window", bytes_that_differ(window, moved), 0, WHY_COPY),
    )


def compare_scan(layer: Layer, xbc: Array, y: Array, state: Array) -> tuple[Comparison, ...]:
    """Return how far the scan is from the recurrence; a sequence without tokens keeps its state."""
    every = 1 if layer.lengths.size * layer.tokens <= DENSE_TOKENS else 8
    every = min(every, layer.dims.num_heads // layer.dims.num_groups)
    expected, after = scan_oracle(layer, xbc, every)
    heads = y.reshape(*y.shape[:2], layer.dims.num_heads, -1)[:, :, ::every]
    found = heads.reshape(expected.shape)
    # of one token also the idle sequence has a defined result; else padding has none
    fed = [length or int(layer.tokens == 1) for length in layer.lengths]
    errors = [worst(found[i, :n], expected[i, :n]) for i, n in enumerate(fed) if n]
    idle = layer.lengths == 0
    return (
        Comparison("y", float(np.max(errors)), SCAN_BOUND, WHY_SCAN),
        Comparison("state", worst(state[:, ::every], after), SCAN_BOUND, WHY_SCAN),
        Comparison("padding", float((~np.isfinite(y)).sum()), 0, "values that are no number"),
        Comparison("idle", bytes_that_differ(state[idle], layer.state[idle]), 0, WHY_COPY),
    )
