"""The real cuda-python between KernelLibrary and the kernels, over a stand-in for libcuda."""

import ctypes
import os
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest

from nemotrt.build.check.kernels.mamba_layer import conv_oracle, draw
from nemotrt.engines.backends.tensorrt.device import kernel_image
from nemotrt.engines.backends.tensorrt.device.kernel_dims import SOURCES, KernelDims
from support.emulated_kernels import compile_kernels, emulated
from support.peers import peer_python

DIMS = KernelDims(4, 20, 16, 2, 4)
ROOT = Path(kernel_image.__file__).parents[5]  # of the package
LAUNCH = """
    import ctypes, sys
    import numpy as np
    from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary

    arrays = dict(np.load(sys.argv[1]))
    grid, threads = tuple(arrays.pop("grid").tolist()), int(arrays.pop("threads"))
    tokens = int(arrays.pop("tokens"))
    operands = [ctypes.c_void_p(array.ctypes.data) for array in arrays.values()]
    state = operands[2]
    limits = [ctypes.c_float(0.0), ctypes.c_float(3e38)]
    extra = [ctypes.c_int(tokens)] if tokens > 1 else []
    name = "ssd_prefill" if tokens > 1 else "ssd_decode"
    library = KernelLibrary(b"an image")
    library.launch(name, grid, threads, [*operands, state, *limits, *extra], 7)
    np.savez(sys.argv[2], y=arrays["y"], state=arrays["state"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 40])
def test_cuda_python_launches_what_we_ask_for(tokens: int, tmp_path: Path) -> None:
    """Library, kernel, grid and every parameter arrive: the result is the emulator's own."""
    library = compile_kernels(DIMS, SOURCES, harness="libcuda.cpp")
    shutil.copyfile(library, tmp_path / "libcuda.so.1")
    layer = draw(DIMS, [tokens, 1], tokens)
    xbc = conv_oracle(layer)[0]
    y = np.zeros((2, tokens, DIMS.inner_size), np.float32)
    operands = {
        "xbc": xbc.view(np.uint16),
        "projected": layer.projected.view(np.uint16),
        "state": layer.state,
        "dt_bias": layer.dt_bias,
        "decay": layer.decay,
        "skip": layer.skip,
        "lengths": layer.lengths,
        "y": y,
    }
    grid, threads = (4, 1, 2), 128
    if tokens > 1:
        grid, threads = (4, 2, 1), DIMS.prefill_threads
    shape = {"grid": np.array(grid), "threads": np.array(threads), "tokens": np.array(tokens)}
    np.savez(tmp_path / "in.npz", **operands, **shape)
    command = [peer_python("cuda"), "-c", textwrap.dedent(LAUNCH)]
    paths = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    files = [tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run([*command, *files], check=True, env=os.environ | paths)
    found = np.load(tmp_path / "out.npz")

    limits = [ctypes.c_float(0.0), ctypes.c_float(3e38)]
    arguments = [*operands.values(), layer.state, *limits]
    name = "ssd_prefill" if tokens > 1 else "ssd_decode"
    arguments += [ctypes.c_int(tokens)] if tokens > 1 else []
    emulated(DIMS).launch(name, grid, threads, arguments)
    np.testing.assert_array_equal(found["y"], y)
    np.testing.assert_array_equal(found["state"], layer.state)
    assert y.any()
