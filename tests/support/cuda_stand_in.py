"""Stands in for CUDA's runtime, as cuda.bindings.runtime speaks it.

Device memory is host memory that only the stand-ins read, and work on the stream is done when it is
synchronized, as late as CUDA may. Every address is checked against what is allocated.
"""

# ruff: noqa: N801, N802, N803, N815  (the names are those of the API)

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaDeviceAttr(IntEnum):
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class Cuda:
    """cuda.bindings.runtime with one stream, whose handle is 7."""

    STREAM = 7
    CAPABILITY = (8, 6)
    UUID = bytes.fromhex("11111111222233334444555555555555")
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaDeviceAttr = cudaDeviceAttr

    def __init__(self, total_bytes: int = 1 << 31) -> None:
        self.total_bytes = total_bytes
        self.device: dict[int, Any] = {}
        self.host: dict[int, Any] = {}
        self.queue: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, int] = {}  # event -> the work, counted from the start, before it
        self.num_enqueued = 0
        self.num_launches = 0
        self.is_stream_open = False

    # what the stand-in of TensorRT asks

    def enqueue(self, work: Callable[[], None], stream: int) -> None:
        assert self.is_stream_open and stream == self.STREAM
        if self.captured is None:
            self.queue.append(work)
            self.num_enqueued += 1
        else:
            self.captured.append(work)

    def check(self, address: int, num_bytes: int, where: str = "device") -> None:
        """Fail unless the bytes lie within one live allocation."""
        for start, memory in getattr(self, where).items():
            if start <= address and address + num_bytes <= start + len(memory):
                return
        raise AssertionError(f"{num_bytes} bytes at {address:#x} are not in {where} memory")

    # the API

    def cudaSetDevice(self, device: int) -> tuple[int]:
        return (0 if device == 0 else 101,)

    def cudaDeviceGetAttribute(self, attr: cudaDeviceAttr, device: int) -> tuple[int, int]:
        return 0, self.CAPABILITY[attr - 75]

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(name=b"A10G", uuid=SimpleNamespace(bytes=self.UUID))

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return 0, b"stand-in error"

    def cudaMemGetInfo(self) -> tuple[int, int, int]:
        return 0, self.total_bytes - sum(map(len, self.device.values())), self.total_bytes

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
        if size > self.cudaMemGetInfo()[1]:
            return 2, None
        return 0, self._new(self.device, size)

    def cudaMallocHost(self, size: int) -> tuple[int, int]:
        return 0, self._new(self.host, size)

    def _new(self, where: dict[int, Any], size: int) -> int:
        memory = (ctypes.c_byte * size)()
        ctypes.memset(memory, 0xFF, size)  # NaN in every float: reading it shows
        where[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def cudaFree(self, devPtr: int) -> tuple[int]:
        assert not self.queue, "memory is freed while the stream may use it"
        del self.device[devPtr]
        return (0,)

    def cudaFreeHost(self, ptr: int) -> tuple[int]:
        del self.host[ptr]
        return (0,)

    def cudaStreamCreate(self) -> tuple[int, int]:
        self.is_stream_open = True
        return 0, self.STREAM

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        assert stream == self.STREAM and not self.queue
        self.is_stream_open = False
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        assert stream == self.STREAM and self.captured is None
        self._work_up_to(self.num_enqueued)
        return (0,)

    def _work_up_to(self, count: int) -> None:
        """Do the first `count` pieces of work of all that were ever enqueued, and no more."""
        num_due = max(0, count - (self.num_enqueued - len(self.queue)))
        work, self.queue = self.queue[:num_due], self.queue[num_due:]
        for item in work:
            item()

    cudaEventDisableTiming = 2

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[int, int]:
        assert flags == self.cudaEventDisableTiming
        event = 5000 + len(self.events)
        self.events[event] = 0
        return 0, event

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        assert stream == self.STREAM and self.captured is None
        self.events[event] = self.num_enqueued
        return (0,)

    def cudaEventSynchronize(self, event: int) -> tuple[int]:
        assert self.captured is None
        self._work_up_to(self.events[event])
        return (0,)

    def cudaEventDestroy(self, event: int) -> tuple[int]:
        assert not self.queue
        del self.events[event]
        return (0,)

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int
    ) -> tuple[int]:
        places = {1: ("device", "host"), 2: ("host", "device"), 3: ("device", "device")}[kind]
        for address, where in zip((dst, src), places, strict=True):
            self.check(address, count, where)
        assert abs(dst - src) >= count, "the copy overlaps"
        self.enqueue(lambda: ctypes.memmove(dst, src, count) and None, stream)
        return (0,)

    def cudaMemsetAsync(
        self,
        devPtr: int,
        value: int,
        count: int,
        stream: int,
    ) -> tuple[int]:
        self.check(devPtr, count)
        self.enqueue(lambda: ctypes.memset(devPtr, value, count) and None, stream)
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: cudaStreamCaptureMode) -> tuple[int]:
        assert stream == self.STREAM and self.captured is None and mode == 1
        self.captured = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, list[Any]]:
        graph, self.captured = self.captured, None
        assert graph is not None
        return 0, graph

    def cudaGraphInstantiate(self, graph: list[Any], flags: int) -> tuple[int, int]:
        handle = 1000 + self.num_launches + len(self.graphs)
        self.graphs[handle] = list(graph)
        return 0, handle

    def cudaGraphDestroy(self, graph: list[Any]) -> tuple[int]:
        graph.clear()
        return (0,)

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> tuple[int]:
        self.num_launches += 1
        for work in self.graphs[graphExec]:
            self.enqueue(work, stream)
        return (0,)

    def cudaGraphExecDestroy(self, graphExec: int) -> tuple[int]:
        assert not self.queue
        del self.graphs[graphExec]
        return (0,)
