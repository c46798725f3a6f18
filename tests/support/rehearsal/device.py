"""cuda-python's three modules in a namespace: the stand-ins, with the driver that is mounted there.

The GPU is the one of which libcuda.so.1 tells; without that library calls fail as the real ones do.
Kernels are compiled by g++ for the emulator, and their image is the library that it made.
"""

# ruff: noqa: N802  (the names are those of the API)

import ctypes
import sys
from importlib import metadata
from types import SimpleNamespace
from typing import Any

from support import cuda_stand_in
from support.emulated_gpu import Driver, Nvrtc

NO_DRIVER = 35  # cudaErrorInsufficientDriver, which a runtime says without a driver, or an old one
CUDA_13 = 13000
TEXTS = {NO_DRIVER: b"CUDA driver version is insufficient for CUDA runtime version"}
NAME_BYTES, UUID_BYTES = 96, 16


def driver_library() -> ctypes.CDLL | None:
    """Return the driver's library, or None where it is not mounted."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


class Gpu(cuda_stand_in.Cuda):
    """The CUDA runtime over the GPU that the driver tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.library = driver_library()
        if self.library is None:
            return
        values = [ctypes.c_int() for _ in range(2)]
        for value, attribute in zip(values, cuda_stand_in.cudaDeviceAttr, strict=True):
            self.library.cuDeviceGetAttribute(ctypes.byref(value), int(attribute), 0)
        size, name = ctypes.c_size_t(), ctypes.create_string_buffer(NAME_BYTES)
        uuid = ctypes.create_string_buffer(UUID_BYTES)
        self.library.cuDeviceTotalMem_v2(ctypes.byref(size), 0)
        self.library.cuDeviceGetName(name, NAME_BYTES, 0)
        self.library.cuDeviceGetUuid_v2(uuid, 0)
        self.CAPABILITY = tuple(value.value for value in values)
        self.total_bytes = size.value
        self.told = SimpleNamespace(name=name.value, uuid=SimpleNamespace(bytes=uuid.raw))

    def cudaSetDevice(self, device: int) -> tuple[int]:
        version = ctypes.c_int()
        if self.library is not None:
            self.library.cuDriverGetVersion(ctypes.byref(version))
        if version.value < CUDA_13:
            return (NO_DRIVER,)
        small_work()
        return super().cudaSetDevice(device)

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:
        return 0, self.told

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return 0, TEXTS.get(error, b"stand-in error")


def small_work() -> None:
    """Give `check --kernels` small cases alone: the emulator takes hours for the real widths."""
    draws = sys.modules.get("nemotrt.build.check.kernels.draws")
    mamba = sys.modules.get("nemotrt.build.check.kernels.mamba")
    times = sys.modules.get("nemotrt.build.check.kernels.device")
    if draws and mamba and times:
        small: Any = (draws.DrawCase(300, "likely", 1, 1),)
        draws.CASES, draws.BATCHES, mamba.CASES = small, (), mamba.CASES[:2]  # type: ignore[attr-defined]
        times.MAX_REPEATS = 1  # type: ignore[attr-defined]


class Compiler(Nvrtc):
    """NVRTC, whose library comes with a package of its own."""

    def nvrtcVersion(self) -> tuple[int, int, int]:
        try:
            metadata.version("nvidia-cuda-nvrtc")
        except metadata.PackageNotFoundError as error:
            raise RuntimeError("Failed to dlopen libnvrtc.so.13") from error
        return super().nvrtcVersion()


RUNTIME = Gpu()
DRIVER = Driver(RUNTIME)
NVRTC = Compiler()
