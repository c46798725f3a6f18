"""The CUDA runtime through cuda-python: the device, its memory, and the stream of the steps."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.device.stream import Stream
from nemotrt.errors import EnvironmentUnfitError, NemotrtError
from nemotrt.needs import CUDA, CURE_DRIVER, pip_install

MODULE = "cuda.bindings.runtime"


@dataclass(frozen=True, slots=True)
class DeviceBuffer:
    """A piece of device memory."""

    address: int
    num_bytes: int


class Cuda(Stream):
    """What an engine needs of CUDA on device 0; itself the stream of the engine's steps.

    Buffers live until `close`, which frees whatever is left.
    """

    def __init__(self, api: Any) -> None:
        """Take `api`, the module cuda.bindings.runtime, and create the stream.

        Raises:
            EnvironmentUnfitError: the driver has no GPU for us, or is none.
        """
        self._device: list[DeviceBuffer] = []
        self._host: set[int] = set()
        self._events: list[int] = []
        self._others: list[Stream] = []
        self._api = api
        try:
            self._call("cudaSetDevice", 0)  # first: streams are its
            super().__init__(api)
        except (NemotrtError, RuntimeError) as error:  # RuntimeError is cuda-python's own
            raise EnvironmentUnfitError(f"{error} {CURE_DRIVER}") from error

    @property
    def compute_capability(self) -> str:
        """The device's compute capability, such as "8.6"."""
        names = self._api.cudaDeviceAttr
        major, minor = (
            self._call("cudaDeviceGetAttribute", attribute, 0)
            for attribute in (
                names.cudaDevAttrComputeCapabilityMajor,
                names.cudaDevAttrComputeCapabilityMinor,
            )
        )
        return f"{major}.{minor}"

    @property
    def identity(self) -> tuple[str, str]:
        """The device's name, and its UUID as NVML writes it."""
        found = self._call("cudaGetDeviceProperties", 0)
        return found.name.decode(errors="replace"), f"GPU-{UUID(bytes=bytes(found.uuid.bytes))}"

    def free_bytes(self) -> int:
        """Return how much device memory is free."""
        status, free, _ = self._api.cudaMemGetInfo()
        return int(free) if int(status) == 0 else 0

    def allocate(self, num_bytes: int) -> DeviceBuffer:
        """Return uninitialized device memory.

        Raises:
            EnvironmentUnfitError: there is not that much.
        """
        status, address = self._api.cudaMalloc(max(num_bytes, 1))
        if int(status) != 0:
            raise EnvironmentUnfitError(
                f"the GPU has no {num_bytes / 2**30:.2f} GiB left ({self.free_bytes() / 2**30:.2f} "
                "GiB are free); build with a smaller --max-batch-size or --max-seq-len."
            )
        buffer = DeviceBuffer(int(address), num_bytes)
        self._device.append(buffer)
        return buffer

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a page-locked array, which copies to and from the device need."""
        kind: np.dtype[Any] = np.dtype(dtype)
        num_bytes = int(np.prod(shape)) * kind.itemsize
        return bytes_at(self.lock_host(num_bytes), num_bytes).view(kind).reshape(shape)

    def lock_host(self, num_bytes: int) -> int:
        """Return the address of page-locked memory."""
        address = int(self._call("cudaMallocHost", num_bytes))
        self._host.add(address)
        return address

    def unlock_host(self, address: int) -> None:
        """Free page-locked memory, to which no copy is due."""
        self._call("cudaFreeHost", address)
        self._host.discard(address)

    def another_stream(self) -> Stream:
        """Return a stream beside this one, which lives as long."""
        self._others.append(Stream(self._api))
        return self._others[-1]

    def event(self) -> int:
        """Return a new event, which marks a place in the stream."""
        event = int(self._call("cudaEventCreateWithFlags", self._api.cudaEventDisableTiming))
        self._events.append(event)
        return event

    def close(self) -> None:
        """Wait, then free every buffer and the streams."""
        streams = (self, *self._others)
        for stream in streams:
            stream.synchronize()
        for buffer in self._device:
            self._call("cudaFree", buffer.address)
        for address in self._host:
            self._call("cudaFreeHost", address)
        for event in self._events:
            self._call("cudaEventDestroy", event)
        self._device.clear()
        self._host.clear()
        self._events.clear()
        for stream in streams:
            self._call("cudaStreamDestroy", stream.stream)


def bytes_at(address: int, num_bytes: int) -> npt.NDArray[np.uint8]:
    """Return memory of the host as an array that does not own it."""
    raw = (ctypes.c_byte * num_bytes).from_address(address)
    return np.frombuffer(memoryview(raw).cast("B"), np.uint8)


def cuda_api() -> Any:
    """Return cuda-python's runtime module.

    Raises:
        EnvironmentUnfitError: it is not installed.
    """
    cure = pip_install(CUDA.requirement)
    return CUDA.load(MODULE, "running TensorRT plans", cure=cure)


@contextmanager
def opened(api: Any) -> Iterator[Cuda]:
    """Yield CUDA, and close it if the block fails."""
    cuda = Cuda(api)
    try:
        yield cuda
    except BaseException:
        cuda.close()
        raise
