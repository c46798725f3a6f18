"""A GPU whose compiler, driver and memory are stand-ins, and whose kernels run in the emulator.

It stands at cuda-python's three modules, so that all of ours is between them.
"""

# ruff: noqa: N802, N803  (the names are those of the API)

import ctypes
import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemotrt.engines.backends.tensorrt.device.kernel_dims import KERNELS
from nemotrt.engines.backends.tensorrt.device.kernel_set import KernelSet
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from support import cuda_stand_in
from support.emulated_kernels import EmulatedKernels, compile_set

NAMES = {b"mamba.cu": KERNELS, b"sampler.cu": SAMPLER.names}


@functools.cache
def _compiled(sources: tuple[tuple[str, str], ...], main: bytes, options: tuple[str, ...]) -> bytes:
    """Return the library of these sources; compiled once a process."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sources:
            (Path(folder) / name).write_text(text)
        kernels = KernelSet(Path(folder), main.decode(), NAMES[main], options, "a test")
        return compile_set(kernels).read_bytes()


@functools.cache
def _loaded(image: bytes) -> EmulatedKernels:
    """Return the kernels of a library; loaded once a process."""
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(image)
        file.flush()
        return EmulatedKernels(Path(file.name))


class Nvrtc:
    """Compiles for the emulator what it is given; an image is the library that was made."""

    STATUS = 0

    def __init__(self, change: Callable[[str], str] = lambda text: text) -> None:
        """Take what changes a source before it is compiled."""
        self._change = change
        self._sources: dict[str, str] = {}
        self._main = b""
        self._image = b""
        self.architectures: list[bytes] = []

    def nvrtcVersion(self) -> tuple[int, int, int]:
        return 0, 13, 5

    def nvrtcCreateProgram(
        self, src: bytes, name: bytes, numHeaders: int, headers: list[bytes], includeNames: Any
    ) -> tuple[int, str]:
        texts = zip((name, *includeNames), (src, *headers), strict=True)
        self._sources = {each.decode(): self._change(text.decode()) for each, text in texts}
        self._main = name
        return 0, "program"

    def nvrtcCompileProgram(self, prog: str, numOptions: int, options: list[bytes]) -> tuple[int]:
        assert numOptions == len(options)
        self.architectures.append(options[0])
        given = tuple(option.decode() for option in options[1:])
        self._image = _compiled(tuple(self._sources.items()), self._main, given)
        return (self.STATUS,)

    def nvrtcGetProgramLogSize(self, prog: str) -> tuple[int, int]:
        return 0, 16

    def nvrtcGetProgramLog(self, prog: str, log: bytearray) -> tuple[int]:
        log[:] = b"line 7: a fault\0"
        return (0,)

    def nvrtcGetCUBINSize(self, prog: str) -> tuple[int, int]:
        return 0, len(self._image)

    def nvrtcGetCUBIN(self, prog: str, cubin: bytearray) -> tuple[int]:
        cubin[:] = self._image
        return (0,)

    def nvrtcDestroyProgram(self, prog: str) -> tuple[int]:
        return (0,)


class Driver:
    """cuda.bindings.driver: kernels run when the stand-in's stream comes to them."""

    def __init__(self, api: cuda_stand_in.Cuda) -> None:
        self._api = api
        self._kernels: dict[int, tuple[EmulatedKernels, bytes]] = {}
        self._handles = itertools.count(100)

    def cuLibraryLoadData(
        self, code: bytes, jit: Any, values: Any, n: int, lib: Any, more: Any, m: int
    ) -> tuple[int, EmulatedKernels]:
        return 0, _loaded(code)

    def cuLibraryGetKernel(self, library: EmulatedKernels, name: bytes) -> tuple[int, int]:
        handle = next(self._handles)
        self._kernels[handle] = library, name
        return 0, handle

    def cuLaunchKernel(
        self,
        f: int,
        gridDimX: int,
        gridDimY: int,
        gridDimZ: int,
        blockDimX: int,
        blockDimY: int,
        blockDimZ: int,
        sharedMemBytes: int,
        hStream: int,
        kernelParams: int,
        extra: int,
    ) -> tuple[int]:
        assert blockDimY == blockDimZ == 1 and sharedMemBytes == extra == 0
        emulated, name = self._kernels[f]
        places = ctypes.cast(kernelParams, ctypes.POINTER(ctypes.c_void_p))
        # as CUDA does, parameters are taken at the launch
        values = [
            ctypes.create_string_buffer(ctypes.string_at(places[i] or 0, size), size)
            for i, size in enumerate(emulated.parameter_bytes(name.decode()))
        ]
        copied = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        grid = gridDimX, gridDimY, gridDimZ

        def work() -> None:
            assert len(values) == len(copied)  # keeps them
            emulated.launch_raw(name.decode(), grid, blockDimX, ctypes.addressof(copied))

        self._api.enqueue(work, hStream)
        return (0,)
