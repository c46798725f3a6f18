"""Page-locked memory that is written again only when the stream has read it.

A copy is enqueued and reads its source in the stream's turn, which may be after the host has gone
on to the next step.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.stream import Stream


class Staging:
    """Page-locked pieces, each of which is written again only when the stream has copied it."""

    def __init__(
        self, cuda: Cuda, count: int, num_bytes: int, stream: Stream | None = None
    ) -> None:
        """Allocate `count` pieces, which `stream` copies, by default that of the steps."""
        self._stream = stream or cuda
        self._pieces = cuda.host_array((count, num_bytes), np.uint8)
        self._events = [cuda.event() for _ in range(count)]

    def take(self, index: int) -> npt.NDArray[Any]:
        """Return a piece to write to; waits until its last copy is done."""
        self._stream.wait(self._events[index])
        piece: npt.NDArray[Any] = self._pieces[index]
        return piece

    def give_back(self, index: int) -> None:
        """Note that the piece's copies are enqueued."""
        self._stream.record(self._events[index])
