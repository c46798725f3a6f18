"""The kernels' own source, run on the host thread by thread, against Mamba-2's recurrence."""

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemotrt.build.check.kernels.mamba_layer import (
    BF16,
    Layer,
    conv_oracle,
    draw,
    scan_oracle,
    worst,
)
from nemotrt.engines.backends.tensorrt.device.kernel_dims import SOURCES, KernelDims
from support.emulated_kernels import EmulatedKernels, compile_kernels, emulated

REAL_HEADS = KernelDims(4, 80, 128, 2, 4)  # four heads of the 9B's
DIMS = [
    pytest.param(REAL_HEADS, id="9B heads"),
    pytest.param(KernelDims(2, 64, 128, 1, 4), id="8B heads", marks=pytest.mark.slow),
    pytest.param(KernelDims(4, 20, 16, 2, 4), id="unaligned head", marks=pytest.mark.slow),
    pytest.param(KernelDims(6, 7, 11, 3, 5), id="odd"),
    pytest.param(KernelDims(2, 16, 260, 2, 2), id="wide state"),
]


# Launches as layers.py makes them


def run_conv(
    layer: Layer, kernels: EmulatedKernels, *, in_place: bool = True, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    dims, batch = layer.dims, len(layer.lengths)
    window = layer.window.copy()
    moved = window if in_place else np.zeros_like(window)
    y = np.full((batch, layer.tokens, dims.channels), np.nan, BF16)
    blocks = -(-dims.channels // (128 * (1 + (dims.channels % 2 == 0))))
    operands = [layer.projected, window, layer.weight, layer.bias, layer.lengths, y, moved]
    grid = (blocks, -(-layer.tokens // 32), batch)
    kernels.launch("causal_conv", grid, 128, [*operands, ctypes.c_int(layer.tokens)], seed)
    return y, moved


def run_scan(
    layer: Layer,
    xbc: np.ndarray,
    kernels: EmulatedKernels,
    name: str = "ssd_prefill",
    *,
    in_place: bool = True,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    dims, batch = layer.dims, len(layer.lengths)
    state = layer.state.copy()
    after = state if in_place else np.full_like(state, np.nan)
    y = np.full((batch, layer.tokens, dims.inner_size), np.nan, np.float32)
    heads = [layer.dt_bias, layer.decay, layer.skip]
    limits = [ctypes.c_float(limit) for limit in layer.limits]
    operands = [xbc, layer.projected, state, *heads, layer.lengths, y, after, *limits]
    if name == "ssd_prefill":
        grid, threads = (dims.num_heads, batch, 1), dims.prefill_threads
        operands.append(ctypes.c_int(layer.tokens))
    else:
        grid, threads = (dims.num_heads, -(-dims.head_dim // dims.decode_rows), batch), 128
    kernels.launch(name, grid, threads, operands, seed)
    return y, after


@pytest.mark.parametrize("dims", DIMS)
def test_convolution(dims: KernelDims) -> None:
    """Rounded once, to bfloat16; the window moves by each sequence's own length."""
    layer = draw(dims, [70, 33, 1, 0], 70)
    expected, moved = conv_oracle(layer)
    found, window = run_conv(layer, emulated(dims))
    step = np.abs(expected.astype(np.float32)) * 2**-7 + 1e-6  # the neighbouring bfloat16
    assert (np.abs(found.astype(np.float32) - expected.astype(np.float32)) <= step).all()
    assert (found == expected).mean() > 0.999
    np.testing.assert_array_equal(window.view(np.int16), moved.view(np.int16))


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("tokens", [1, 32, 70])
def test_prefill(dims: KernelDims, tokens: int) -> None:
    """Chunked on tensor cores, and still of float32's grade: two bfloat16 a factor."""
    layer = draw(dims, [tokens, (tokens + 1) // 2], tokens)
    xbc = conv_oracle(layer)[0]
    expected, state = scan_oracle(layer, xbc)
    found, after = run_scan(layer, xbc, emulated(dims))
    for i, length in enumerate(layer.lengths):
        assert worst(found[i, :length], expected[i, :length]) < 2e-5
    assert np.isfinite(found).all()
    assert worst(after, state) < 2e-5


@pytest.mark.parametrize("dims", DIMS)
def test_decode(dims: KernelDims) -> None:
    """One token; a sequence that is not fed keeps its state, bit for bit."""
    layer = draw(dims, [1, 0, 1], 1)
    xbc = conv_oracle(layer)[0]
    expected, state = scan_oracle(layer, xbc)
    found, after = run_scan(layer, xbc, emulated(dims), "ssd_decode")
    assert worst(found, expected) < 1e-6
    assert worst(after, state) < 1e-6
    np.testing.assert_array_equal(after[1], layer.state[1])


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 80), min_size=1, max_size=3),
    extra=st.integers(0, 40),
    seed=st.integers(0, 2**31),
)
@example(lengths=[74, 57, 0], extra=1, seed=1362984)  # exponents sum to 452 in a chunk
def test_any_lengths_and_any_order_of_threads(lengths: list[int], extra: int, seed: int) -> None:
    """Padding changes nothing; in place or not is the same, bit for bit."""
    dims = KernelDims(4, 20, 16, 2, 4)
    layer = draw(dims, lengths, max(lengths) + extra or 1, seed)
    kernels = emulated(dims)
    xbc, moved = run_conv(layer, kernels, seed=seed)
    found, after = run_scan(layer, xbc, kernels, seed=seed)
    other_xbc, other_moved = run_conv(layer, kernels, in_place=False)
    other, other_after = run_scan(layer, xbc, kernels, in_place=False)
    for one, two in ((xbc, other_xbc), (moved, other_moved), (found, other), (after, other_after)):
        np.testing.assert_array_equal(one.view(np.uint8), two.view(np.uint8))
    expected, state = scan_oracle(layer, xbc)
    assert worst(after, state) < 2e-5
    for i, length in enumerate(lengths):
        if length:
            assert worst(found[i, :length], expected[i, :length]) < 2e-5


def test_chunks_and_steps_give_what_one_call_gives() -> None:
    """70 tokens at once, or 33, then 32, then five single ones."""
    whole = draw(REAL_HEADS, [70], 70)
    kernels = emulated(REAL_HEADS)
    xbc, _ = run_conv(whole, kernels)
    expected, state = run_scan(whole, xbc, kernels)
    part, start = draw(REAL_HEADS, [70], 70), 0
    for tokens in (33, 32, 1, 1, 1, 1, 1):
        part.projected = np.ascontiguousarray(whole.projected[:, start : start + tokens])
        part.lengths = np.array([tokens])
        part_xbc, part.window = run_conv(part, kernels)
        name = "ssd_prefill" if tokens > 1 else "ssd_decode"
        found, part.state = run_scan(part, part_xbc, kernels, name)
        assert worst(found, expected[:, start : start + tokens]) < 2e-5
        start += tokens
    assert worst(part.state, state) < 2e-5


def test_the_time_step_is_limited() -> None:
    dims = KernelDims(4, 20, 16, 2, 4)
    layer = draw(dims, [20], 20)
    layer.limits = (0.3, 0.6)
    xbc = conv_oracle(layer)[0]
    expected, state = scan_oracle(layer, xbc)
    found, after = run_scan(layer, xbc, emulated(dims))
    assert worst(found, expected) < 2e-5
    assert worst(after, state) < 2e-5


@pytest.mark.parametrize("length", [-5, 10**12])
def test_lengths_that_mean_nothing_stay_inside(length: int) -> None:
    """TensorRT times kernels on arbitrary inputs."""
    dims = KernelDims(4, 20, 16, 2, 4)
    layer, clipped = draw(dims, [length], 9), draw(dims, [min(max(length, 0), 9)], 9)
    kernels = emulated(dims)
    xbc, moved = run_conv(layer, kernels)
    np.testing.assert_array_equal(moved, run_conv(clipped, kernels)[1])
    expected = run_scan(clipped, xbc, kernels)
    for found, other in zip(run_scan(layer, xbc, kernels), expected, strict=True):
        np.testing.assert_array_equal(found, other)


@pytest.mark.slow
@pytest.mark.parametrize("dims", DIMS)
def test_nothing_is_undefined(dims: KernelDims) -> None:
    """Alignment of vector accesses, bounds of arrays, shifts: the sanitizer ends the process."""
    flags = ["-fsanitize=undefined", "-fno-sanitize-recover=undefined", "-O1", "-Wno-error"]
    kernels = EmulatedKernels(compile_kernels(dims, SOURCES, flags))
    for tokens, name in ((37, "ssd_prefill"), (1, "ssd_prefill"), (1, "ssd_decode")):
        layer = draw(dims, [tokens, tokens // 2], tokens)
        xbc, _ = run_conv(layer, kernels)
        _, after = run_scan(layer, xbc, kernels, name)
        assert worst(after, scan_oracle(layer, xbc)[1]) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("index", range(3))
def test_a_barrier_that_is_left_out_shows(index: int, tmp_path: Path) -> None:
    """The emulator is no oracle that always agrees: each barrier of the prefill kernel matters."""
    shutil.copytree(SOURCES, tmp_path / "kernels")
    source = tmp_path / "kernels" / "ssd_prefill.h"
    parts = source.read_text().split("__syncthreads();")
    assert len(parts) == 4
    joined = "__syncthreads();".join(parts[: index + 1]) + "__syncthreads();".join(
        parts[index + 1 :]
    )
    source.write_text(joined)
    kernels = EmulatedKernels(compile_kernels(REAL_HEADS, tmp_path / "kernels"))
    layer = draw(REAL_HEADS, [70], 70)
    xbc = conv_oracle(layer)[0]
    expected, state = scan_oracle(layer, xbc)
    found, after = run_scan(layer, xbc, kernels)
    assert not (worst(found, expected) < 2e-5 and worst(after, state) < 2e-5)
