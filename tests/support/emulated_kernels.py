"""The CUDA kernels compiled for the host by g++, and launched as the CUDA driver launches them."""

import ctypes
import functools
import mmap
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nemotrt.engines.backends.native.library.compiler import find_compiler
from nemotrt.engines.backends.tensorrt.device.kernel_dims import SOURCES, KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_set import KernelSet

HARNESS = Path(__file__).parent / "cuda_emulator"
ALIGNMENT = 16  # of what a kernel may read at once
FLAGS = ["-std=c++20", "-O2", "-fPIC", "-shared", "-fno-strict-aliasing", "-Wall", "-Wextra"]
FLAGS += ["-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"]


class EmulatedKernels:
    """One set of kernels; every thread of a block is a fiber (cuda_emulator/emulator.h)."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self.num_launches: dict[str, int] = {}

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Sequence[Any],
        seed: int = 0,
    ) -> None:
        """Run a kernel; arrays are passed by address, the rest as ctypes values.

        Arrays lie before a page that can't be touched: a kernel that passes their end dies.
        """
        arrays = {id(x): x for x in arguments if isinstance(x, np.ndarray)}
        copies = {key: guarded(x) for key, x in arrays.items()}
        values = [
            ctypes.c_void_p(copies[id(x)].ctypes.data) if isinstance(x, np.ndarray) else x
            for x in arguments
        ]
        places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        assert self.num_parameters(name) == len(values)
        self.launch_raw(name, grid, threads, ctypes.addressof(places), seed)
        for key, x in arrays.items():
            x[...] = copies[key]

    def num_parameters(self, name: str) -> int:
        """Return how many parameters a kernel takes."""
        found: int = self._library.num_parameters(name.encode())
        return found

    def parameter_bytes(self, name: str) -> list[int]:
        """Return the size of each parameter of a kernel."""
        of = self._library.parameter_bytes
        return [of(name.encode(), index) for index in range(self.num_parameters(name))]

    def launch_raw(
        self, name: str, grid: tuple[int, int, int], threads: int, parameters: int, seed: int = 0
    ) -> None:
        """Run a kernel with the parameters at an address, as cuLaunchKernel takes them."""
        self.num_launches[name] = self.num_launches.get(name, 0) + 1
        pointer = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))
        shape = (ctypes.c_uint * 3)(*grid)
        missing = self._library.launch(
            name.encode(), shape, threads, pointer, ctypes.c_uint64(seed)
        )
        assert missing == 0, name


def guarded(array: np.ndarray) -> np.ndarray:
    """Return a copy that ends, but for its alignment, where the next page can't be touched."""
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + size), mmap.PAGESIZE, 0) == 0
    start = (size - array.nbytes) // ALIGNMENT * ALIGNMENT
    copy = np.frombuffer(memory, array.dtype, array.size, start).reshape(array.shape)
    copy[...] = array
    return copy


@functools.cache
def emulated(dims: KernelDims) -> EmulatedKernels:
    """Return the kernels for these dimensions; compiled once a process."""
    return EmulatedKernels(compile_kernels(dims, SOURCES))


def compile_kernels(
    dims: KernelDims, sources: Path, flags: Sequence[str] = (), *, harness: str = "emulated.cpp"
) -> Path:
    """Compile the Mamba kernels in `sources`, as compile_set does."""
    return compile_set(replace(dims.kernels, folder=sources), flags, harness=harness)


@functools.cache
def emulated_set(kernels: KernelSet) -> EmulatedKernels:
    """Return the kernels of a set; compiled once a process."""
    return EmulatedKernels(compile_set(kernels))


def compile_set(
    kernels: KernelSet, flags: Sequence[str] = (), *, harness: str = "emulated.cpp"
) -> Path:
    """Compile kernels for the host, with a file of the emulator's folder."""
    command = find_compiler()
    assert command, "the kernels' arithmetic is tested with a C++ compiler: apt-get install g++"
    options = [
        *FLAGS,
        *flags,
        *kernels.defines,
        f'-DMAIN_SOURCE="{kernels.main}"',
        f"-DEACH_KERNEL(DO)={' '.join(f'DO({name})' for name in kernels.names)}",
    ]
    texts = [path.read_text() for path in sorted(HARNESS.iterdir()) if path.is_file()]
    target = kept_folder() / f"{kernels.digest(*command, *options, harness, *texts)}.so"
    if not target.is_file():
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as new:
            options += [f"-I{kernels.folder}", str(HARNESS / harness), "-o", new.name]
            subprocess.run([*command, *options], check=True, capture_output=True, text=True)
        Path(new.name).rename(target)
    return target


@functools.cache
def kept_folder() -> Path:
    """Return the folder of the libraries, by what they are made of; processes share it."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "nemotrt" / "emulated-kernels"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a user without a home
        folder = Path(tempfile.gettempdir()) / "emulated-kernels"
        folder.mkdir(exist_ok=True)
    return folder
