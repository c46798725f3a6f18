"""The compiled kernels on a real GPU. Not executed by their authors: run `pytest -m gpu` there.

Against the same oracle as in the emulator, at the 9B's full widths; and a plan with plugins against
the CPU engine.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, cuda_api
from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_image import compile_image
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from support.mamba_oracle import BF16, Layer, conv_oracle, draw, scan_oracle, worst

pytestmark = pytest.mark.gpu
NINE_B = KernelDims(128, 80, 128, 8, 4)


@pytest.fixture
def cuda() -> Iterator[Cuda]:
    opened = Cuda(cuda_api())
    yield opened
    opened.close()


class DeviceKernels:
    """Kernels for the GPU that is there, launched on copies of host arrays."""

    def __init__(self, cuda: Cuda, folder: Path) -> None:
        compile_image(NINE_B, cuda.compute_capability, folder / "image")
        self._library = KernelLibrary((folder / "image").read_bytes())
        self._cuda = cuda

    def launch(
        self, name: str, grid: tuple[int, int, int], threads: int, arguments: list[Any]
    ) -> None:
        """Copy the arrays to the GPU, launch, and copy them back; an array twice is one."""
        sides: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}
        typed = []
        for value in arguments:
            if not isinstance(value, np.ndarray):
                typed.append(value)
                continue
            if id(value) not in sides:
                pinned = self._cuda.host_array((value.nbytes,), np.uint8)
                pinned[...] = value.reshape(-1).view(np.uint8)
                address = self._cuda.allocate(value.nbytes).address
                self._cuda.to_device(address, pinned)
                sides[id(value)] = (value, pinned, address)
            typed.append(ctypes.c_void_p(sides[id(value)][2]))
        self._library.launch(name, grid, threads, typed, self._cuda.stream)
        for _, pinned, address in sides.values():
            self._cuda.to_host(pinned, address)
        self._cuda.synchronize()
        for value, pinned, _ in sides.values():
            value.reshape(-1).view(np.uint8)[...] = pinned


def run_layer(layer: Layer, kernels: DeviceKernels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the convolution's result, the scan's, and the state after it."""
    dims, batch, tokens = layer.dims, len(layer.lengths), layer.tokens
    window, state = layer.window.copy(), layer.state.copy()
    xbc = np.zeros((batch, tokens, dims.channels), BF16)
    y = np.zeros((batch, tokens, dims.inner_size), np.float32)
    operands = [layer.projected, window, layer.weight, layer.bias, layer.lengths, xbc, window]
    grid = (-(-dims.channels // 256), -(-tokens // 32), batch)
    kernels.launch("causal_conv", grid, 128, [*operands, ctypes.c_int(tokens)])
    limits = [ctypes.c_float(limit) for limit in layer.limits]
    heads = [layer.dt_bias, layer.decay, layer.skip]
    operands = [xbc, layer.projected, state, *heads, layer.lengths, y, state, *limits]
    if tokens == 1:
        blocks = (dims.num_heads, -(-dims.head_dim // dims.decode_rows), batch)
        kernels.launch("ssd_decode", blocks, 128, operands)
    else:
        blocks = (dims.num_heads, batch, 1)
        operands.append(ctypes.c_int(tokens))
        kernels.launch("ssd_prefill", blocks, dims.prefill_threads, operands)
    return xbc, y, state


@pytest.mark.parametrize("lengths", [[1, 0, 1], [100, 33]])
def test_the_kernels_give_the_recurrence(lengths: list[int], cuda: Cuda, tmp_path: Path) -> None:
    layer = draw(NINE_B, lengths, max(lengths))
    xbc, y, state = run_layer(layer, DeviceKernels(cuda, tmp_path))
    assert (xbc == conv_oracle(layer)[0]).mean() > 0.999
    expected, after = scan_oracle(layer, xbc)
    assert worst(state, after) < 2e-5
    for i, length in enumerate(lengths):
        assert worst(y[i, : length or 1], expected[i, : length or 1]) < 2e-5


def test_a_plan_with_plugins_generates_what_the_cpu_does(cuda: Cuda, tmp_path: Path) -> None:
    """The tiny model, greedy: the same first tokens as ONNX Runtime's engine."""
    name = {"8.0": "a100", "8.6": "a10g", "9.0": "h100"}[cuda.compute_capability]
    choices = {"cpu": [], "gpu": ["--gpu", name, "--mamba", "plugin"]}
    texts = {}
    for kind, options in choices.items():
        target = str(tmp_path / kind)
        built = CliRunner().invoke(main, ["build", "tiny", "-o", target, *options])
        assert built.exit_code == 0, built.output
        asked = ["generate", target, "--prompt-ids", "300,301,302,303", "--max-tokens", "8"]
        texts[kind] = CliRunner().invoke(main, [*asked, "--temperature", "0"]).stdout
    assert texts["cpu"] == texts["gpu"] != ""
