"""How fast the Mamba plugins' kernels run on this machine's GPU, at the 9B's widths.

usage: python benchmarks/mamba_kernels_host.py    # on a GPU host; not executed by its authors

Each row is one layer: microseconds a launch, and the bytes that must move over that time. A share
of the datasheet's bandwidth, for ssd_decode, is what a GPU profile calls `ssm_bandwidth`.
"""

import ctypes
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, cuda_api
from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_image import KERNELS_FILE, compile_image
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary

DIMS = KernelDims(num_heads=128, head_dim=80, state_size=128, num_groups=8, conv_kernel=4)
SHAPES = ((1, 1), (8, 1), (32, 1), (1, 512), (4, 128))  # (sequences, new tokens)
LAUNCHES = 100
BF16, F32, I64 = 2, 4, 8  # bytes


def sizes(batch: int, tokens: int) -> dict[str, int]:
    """Return the bytes of each operand."""
    d, rows = DIMS, batch * tokens
    return {
        "projected": rows * d.width * BF16,
        "window": batch * (d.conv_kernel - 1) * d.channels * BF16,
        "weight": d.channels * d.conv_kernel * BF16,
        "bias": d.channels * BF16,
        "lengths": batch * I64,
        "xbc": rows * d.channels * BF16,
        "state": batch * d.inner_size * d.state_size * F32,
        "heads": d.num_heads * F32,
        "y": rows * d.inner_size * F32,
    }


def launches(at: dict[str, int], batch: int, tokens: int) -> dict[str, tuple[Any, ...]]:
    """Return kernel -> grid, threads, parameters, as layers.py launches them."""
    d = DIMS
    ints = {name: ctypes.c_void_p(address) for name, address in at.items()}
    conv = [ints[x] for x in ("projected", "window", "weight", "bias", "lengths", "xbc", "window")]
    scan = [ints[x] for x in ("xbc", "projected", "state", "heads", "heads", "heads", "lengths")]
    scan += [ints["y"], ints["state"], ctypes.c_float(0), ctypes.c_float(3e38)]
    grid = (-(-d.channels // 256), -(-tokens // 32), batch)
    found: dict[str, tuple[Any, ...]] = {
        "causal_conv": (grid, 128, [*conv, ctypes.c_int(tokens)]),
    }
    if tokens == 1:
        blocks = (d.num_heads, -(-d.head_dim // d.decode_rows), batch)
        return found | {"ssd_decode": (blocks, 128, scan)}
    blocks = (d.num_heads, batch, 1)
    return found | {"ssd_prefill": (blocks, d.prefill_threads, [*scan, ctypes.c_int(tokens)])}


def moved(name: str, held: dict[str, int]) -> int:
    """Return the bytes that a kernel must read and write."""
    if name == "causal_conv":
        return 2 * held["xbc"] + 2 * held["window"]  # of in_proj's result only xBC is read
    return held["xbc"] + held["y"] + 2 * held["state"]


def main() -> None:
    """Print the table."""
    cuda = Cuda(cuda_api())
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / KERNELS_FILE
        compiler = compile_image(DIMS, cuda.compute_capability, image)
        library = KernelLibrary(image.read_bytes())
    print(f"compute capability {cuda.compute_capability}, compiled by {compiler}")
    print(f"{'kernel':12} {'sequences':>9} {'tokens':>6} {'us':>9} {'GB/s':>8}")
    for batch, tokens in SHAPES:
        held = sizes(batch, tokens)
        at = {name: cuda.allocate(size).address for name, size in held.items()}
        for name, size in held.items():
            cuda.zero(at[name], size)
        lengths = cuda.host_array((batch,), np.int64)
        lengths[:] = tokens
        cuda.to_device(at["lengths"], lengths)
        for name, (grid, threads, parameters) in launches(at, batch, tokens).items():
            for is_timed in (False, True):
                cuda.synchronize()
                start = time.perf_counter()
                for _ in range(LAUNCHES):
                    library.launch(name, grid, threads, parameters, cuda.stream)
                cuda.synchronize()
                took_s = (time.perf_counter() - start) / LAUNCHES
                if is_timed:
                    rate = moved(name, held) / took_s / 1e9
                    print(f"{name:12} {batch:9} {tokens:6} {took_s * 1e6:9.1f} {rate:8.1f}")
    cuda.close()


if __name__ == "__main__":
    main()
