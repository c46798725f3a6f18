"""Stands in for CUDA's runtime, as cuda.bindings.runtime speaks it.

Device memory is host memory that only the stand-ins read, and work on a stream is done when it is
waited for, as late as CUDA may: by the host, or by another stream. What a further stream is given
may be done at once instead, as early as CUDA may. Every address is checked against what is
allocated.
"""

# ruff: noqa: N801, N802, N803, N815  (the names are those of the API)

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
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


@dataclass
class Stream:
    """Work that is not done yet, and how much there ever was."""

    queue: list[Callable[[], None]] = field(default_factory=list)
    num_enqueued: int = 0

    def add(self, work: Callable[[], None]) -> None:
        self.queue.append(work)
        self.num_enqueued += 1

    def work_up_to(self, count: int) -> None:
        """Do the first `count` pieces of work of all that were ever enqueued, and no more."""
        while self.queue and self.num_enqueued - len(self.queue) < count:
            self.queue.pop(0)()


class Cuda:
    """cuda.bindings.runtime; the first stream's handle is 7, and graphs are captured there.

    With `is_early`, the other streams' work is done at once.
    """

    STREAM = 7
    CAPABILITY = (8, 6)
    UUID = bytes.fromhex("11111111222233334444555555555555")
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaDeviceAttr = cudaDeviceAttr

    def __init__(self, total_bytes: int = 1 << 31, *, is_early: bool = False) -> None:
        self.total_bytes = total_bytes
        self.is_early = is_early
        self.device: dict[int, Any] = {}
        self.host: dict[int, Any] = {}
        self.streams: dict[int, Stream] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        # event -> a stream, and the work, counted from the start, before it there
        self.events: dict[int, tuple[int, int]] = {}
        self.num_launches = 0

    @property
    def queue(self) -> list[Callable[[], None]]:
        """What the first stream has not done."""
        return self.streams[self.STREAM].queue if self.is_stream_open else []

    @property
    def is_stream_open(self) -> bool:
        return bool(self.streams)

    @property
    def is_idle(self) -> bool:
        return not any(stream.queue for stream in self.streams.values())

    # what the stand-in of TensorRT asks

    def enqueue(self, work: Callable[[], None], stream: int) -> None:
        if self.captured is not None and stream == self.STREAM:
            self.captured.append(work)
            return
        own = self.streams[stream]
        own.add(work)
        if self.is_early and stream != self.STREAM:
            own.work_up_to(own.num_enqueued)

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
        assert self.is_idle, "memory is freed while a stream may use it"
        del self.device[devPtr]
        return (0,)

    def cudaFreeHost(self, ptr: int) -> tuple[int]:
        del self.host[ptr]  # a copy that is due to it fails then
        return (0,)

    def cudaStreamCreate(self) -> tuple[int, int]:
        handle = self.STREAM + len(self.streams)
        self.streams[handle] = Stream()
        return 0, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        assert not self.streams.pop(stream).queue
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        assert self.captured is None
        own = self.streams[stream]
        own.work_up_to(own.num_enqueued)
        return (0,)

    cudaEventDisableTiming = 2

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[int, int]:
        assert flags == self.cudaEventDisableTiming
        event = 5000 + len(self.events)
        self.events[event] = self.STREAM, 0
        return 0, event

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        assert event in self.events and self.captured is None
        self.events[event] = stream, self.streams[stream].num_enqueued
        return (0,)

    def cudaEventSynchronize(self, event: int) -> tuple[int]:
        assert self.captured is None
        self._reach(self.events[event])
        return (0,)

    def _reach(self, place: tuple[int, int]) -> None:
        """Do what a stream has before a place."""
        stream, count = place
        self.streams[stream].work_up_to(count)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[int]:
        assert flags == 0 and self.captured is None
        place = self.events[event]  # as it was recorded last; a later record moves nothing
        self.enqueue(lambda: self._reach(place), stream)
        return (0,)

    def cudaEventDestroy(self, event: int) -> tuple[int]:
        assert self.is_idle
        del self.events[event]
        return (0,)

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int
    ) -> tuple[int]:
        places = {1: ("device", "host"), 2: ("host", "device"), 3: ("device", "device")}[kind]

        def check() -> None:
            for address, where in zip((dst, src), places, strict=True):
                self.check(address, count, where)

        def copy() -> None:
            check()  # both are there still
            ctypes.memmove(dst, src, count)

        check()
        assert abs(dst - src) >= count, "the copy overlaps"
        self.enqueue(copy, stream)
        return (0,)

    def cudaMemcpy2DAsync(
        self,
        dst: int,
        dpitch: int,
        src: int,
        spitch: int,
        width: int,
        height: int,
        kind: cudaMemcpyKind,
        stream: int,
    ) -> tuple[int]:
        assert 0 < width <= min(dpitch, spitch) and height > 0
        places = {1: ("device", "host"), 2: ("host", "device")}[kind]

        def check() -> None:
            for (address, pitch), where in zip(((dst, dpitch), (src, spitch)), places, strict=True):
                self.check(address, (height - 1) * pitch + width, where)

        def copy() -> None:
            check()
            for row in range(height):
                ctypes.memmove(dst + row * dpitch, src + row * spitch, width)

        check()
        self.enqueue(copy, stream)
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
