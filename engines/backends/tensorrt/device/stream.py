"""A stream of the CUDA runtime through cuda-python: copies, events, graphs. Calls are checked."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from nemotrt.errors import EnvironmentUnfitError, NemotrtError

# cudaError and CUresult: out of memory, not initialized, a stub for the driver, a driver that is
# too old, a busy GPU, no GPU, and a driver's services or versions that don't fit.
LACKING = frozenset({2, 3, 34, 35, 46, 100, 802, 803, 804})


class Stream:
    """Work that the device does in the order in which it is enqueued, beside other streams'."""

    def __init__(self, api: Any) -> None:
        """Take `api`, the module cuda.bindings.runtime, and create the stream."""
        self._api = api
        self._kinds = api.cudaMemcpyKind
        self.stream = int(self._call("cudaStreamCreate"))

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the API; return its value, if it has one."""
        status, *values = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            text = self._api.cudaGetErrorString(status)[1]
            what = f"{name} failed: {text.decode()} (cudaError {int(status)})."
            raise failed_call(int(status), what)
        return values[0] if values else None

    def to_device(self, target: int, source: npt.NDArray[Any], pitch: int = 0) -> None:
        """Enqueue a copy of a contiguous page-locked array.

        With a `pitch` its rows come to lie so many bytes apart.
        """
        kind, address = self._kinds.cudaMemcpyHostToDevice, source.ctypes.data
        if pitch:
            width = source.nbytes // len(source)
            self._copy_rows((target, pitch), (address, width), (width, len(source)), kind)
        else:
            self._copy(target, address, source.nbytes, kind)

    def to_host(self, target: npt.NDArray[Any], source: int, pitch: int = 0) -> None:
        """Enqueue a copy into a contiguous page-locked array; read it after `synchronize`.

        With a `pitch` its rows lie so many bytes apart on the device.
        """
        kind, address = self._kinds.cudaMemcpyDeviceToHost, target.ctypes.data
        if pitch:
            width = target.nbytes // len(target)
            self._copy_rows((address, width), (source, pitch), (width, len(target)), kind)
        else:
            self._copy(address, source, target.nbytes, kind)

    def copy(self, target: int, source: int, num_bytes: int) -> None:
        """Enqueue a copy within the device."""
        self._copy(target, source, num_bytes, self._kinds.cudaMemcpyDeviceToDevice)

    def _copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, num_bytes, kind, self.stream)

    def _copy_rows(
        self, target: tuple[int, int], source: tuple[int, int], size: tuple[int, int], kind: Any
    ) -> None:
        """Enqueue a copy from an address, and the bytes from row to row, to another; of one size.

        The size is the bytes of a row, and the number of rows.
        """
        (dst, dpitch), (src, spitch), (width, height), own = target, source, size, self.stream
        self._call("cudaMemcpy2DAsync", dst, dpitch, src, spitch, width, height, kind, own)

    def zero(self, target: int, num_bytes: int) -> None:
        """Enqueue zeros."""
        self._call("cudaMemsetAsync", target, 0, num_bytes, self.stream)

    def synchronize(self) -> None:
        """Wait for all that is enqueued."""
        self._call("cudaStreamSynchronize", self.stream)

    def record(self, event: int) -> None:
        """Put the event behind all that is enqueued."""
        self._call("cudaEventRecord", event, self.stream)

    def wait(self, event: int) -> None:
        """Wait for all that was enqueued when the event was recorded; at once if it never was."""
        self._call("cudaEventSynchronize", event)

    def follow(self, event: int) -> None:
        """Have all that is enqueued from now on wait as `wait` would now; the host goes on."""
        self._call("cudaStreamWaitEvent", self.stream, event, 0)

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


def failed_call(status: int, what: str) -> NemotrtError:
    """Return the error of a CUDA call: of its own kind where this machine lacks something."""
    return EnvironmentUnfitError(what) if status in LACKING else NemotrtError(what)
