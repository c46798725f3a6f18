"""The CUDA runtime through cuda-python: memory, a stream, events, graphs. Calls are checked."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from nemotrt.errors import EnvironmentUnfitError, NemotrtError
from nemotrt.needs import CUDA, CURE_DRIVER, pip_install

MODULE = "cuda.bindings.runtime"
# cudaError and CUresult: out of memory, not initialized, a stub for the driver, a driver that is
# too old, a busy GPU, no GPU, and a driver's services or versions that don't fit.
LACKING = frozenset({2, 3, 34, 35, 46, 100, 802, 803, 804})


@dataclass(frozen=True, slots=True)
class DeviceBuffer:
    """A piece of device memory."""

    address: int
    num_bytes: int


class Cuda:
    """What an engine needs of CUDA on device 0, all of it on one stream.

    Buffers live until `close`, which frees whatever is left.
    """

    def __init__(self, api: Any) -> None:
        """Take `api`, the module cuda.bindings.runtime, and create the stream.

        Raises:
            EnvironmentUnfitError: the driver has no GPU for us, or is none.
        """
        self._api = api
        self._kinds = api.cudaMemcpyKind
        self._device: list[DeviceBuffer] = []
        self._host: list[int] = []
        self._events: list[int] = []
        try:
            self._call("cudaSetDevice", 0)
            self.stream = int(self._call("cudaStreamCreate"))
        except (NemotrtError, RuntimeError) as error:  # RuntimeError is cuda-python's own
            raise EnvironmentUnfitError(f"{error} {CURE_DRIVER}") from error

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the API; return its value, if it has one."""
        status, *values = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            text = self._api.cudaGetErrorString(status)[1]
            what = f"{name} failed: {text.decode()} (cudaError {int(status)})."
            raise failed_call(int(status), what)
        return values[0] if values else None

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
        address = int(self._call("cudaMallocHost", num_bytes))
        self._host.append(address)
        raw = (ctypes.c_byte * num_bytes).from_address(address)
        return np.frombuffer(memoryview(raw).cast("B"), kind).reshape(shape)

    def to_device(self, target: int, source: npt.NDArray[Any]) -> None:
        """Enqueue a copy of a contiguous page-locked array."""
        kind = self._kinds.cudaMemcpyHostToDevice
        self._copy(target, source.ctypes.data, source.nbytes, kind)

    def to_host(self, target: npt.NDArray[Any], source: int) -> None:
        """Enqueue a copy into a contiguous page-locked array; read it after `synchronize`."""
        kind = self._kinds.cudaMemcpyDeviceToHost
        self._copy(target.ctypes.data, source, target.nbytes, kind)

    def copy(self, target: int, source: int, num_bytes: int) -> None:
        """Enqueue a copy within the device."""
        self._copy(target, source, num_bytes, self._kinds.cudaMemcpyDeviceToDevice)

    def _copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, num_bytes, kind, self.stream)

    def zero(self, target: int, num_bytes: int) -> None:
        """Enqueue zeros."""
        self._call("cudaMemsetAsync", target, 0, num_bytes, self.stream)

    def synchronize(self) -> None:
        """Wait for all that is enqueued."""
        self._call("cudaStreamSynchronize", self.stream)

    def event(self) -> int:
        """Return a new event, which marks a place in the stream."""
        event = int(self._call("cudaEventCreateWithFlags", self._api.cudaEventDisableTiming))
        self._events.append(event)
        return event

    def record(self, event: int) -> None:
        """Put the event behind all that is enqueued."""
        self._call("cudaEventRecord", event, self.stream)

    def wait(self, event: int) -> None:
        """Wait for all that was enqueued when the event was recorded; at once if it never was."""
        self._call("cudaEventSynchronize", event)

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """Return what `enqueue` would do as a graph that can be launched; nothing is executed."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            enqueue()
        finally:
            graph = self._call("cudaStreamEndCapture", self.stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        return executable

    def launch(self, executable: Any) -> None:
        """Enqueue a captured graph."""
        self._call("cudaGraphLaunch", executable, self.stream)

    def destroy_graph(self, executable: Any) -> None:
        """Free a captured graph."""
        self._call("cudaGraphExecDestroy", executable)

    def close(self) -> None:
        """Wait, then free every buffer and the stream."""
        self.synchronize()
        for buffer in self._device:
            self._call("cudaFree", buffer.address)
        for address in self._host:
            self._call("cudaFreeHost", address)
        for event in self._events:
            self._call("cudaEventDestroy", event)
        self._device.clear()
        self._host.clear()
        self._events.clear()
        self._call("cudaStreamDestroy", self.stream)


def cuda_api() -> Any:
    """Return cuda-python's runtime module.

    Raises:
        EnvironmentUnfitError: it is not installed.
    """
    try:
        return import_module(MODULE)
    except ImportError as error:
        line = pip_install(CUDA.requirement)
        raise EnvironmentUnfitError(f"running TensorRT plans needs cuda-python: {line}.") from error


def failed_call(status: int, what: str) -> NemotrtError:
    """Return the error of a CUDA call: of its own kind where this machine lacks something."""
    return EnvironmentUnfitError(what) if status in LACKING else NemotrtError(what)


@contextmanager
def opened(api: Any) -> Iterator[Cuda]:
    """Yield CUDA, and close it if the block fails."""
    cuda = Cuda(api)
    try:
        yield cuda
    except BaseException:
        cuda.close()
        raise
