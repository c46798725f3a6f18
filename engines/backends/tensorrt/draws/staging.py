"""Page-locked memory that is written again only when the stream has read it."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.run.cuda import Cuda


class Staging:
    """Page-locked pieces, each of which is written again only when the stream has copied it."""

    def __init__(self, cuda: Cuda, count: int, num_bytes: int) -> None:
        """Allocate `count` pieces."""
        self._cuda = cuda
        self._pieces = cuda.host_array((count, num_bytes), np.uint8)
        self._events = [cuda.event() for _ in range(count)]

    def take(self, index: int) -> npt.NDArray[Any]:
        """Return a piece to write to; waits until its last copy is done."""
        self._cuda.wait(self._events[index])
        piece: npt.NDArray[Any] = self._pieces[index]
        return piece

    def give_back(self, index: int) -> None:
        """Note that the piece's copies are enqueued."""
        self._cuda.record(self._events[index])


class Masks:
    """A mask of each slot, here and on the device.

    They are written between one step's tokens and the next choice alone, so no copy is due then.
    """

    def __init__(self, cuda: Cuda, num_slots: int, num_bytes: int, target: int) -> None:
        """Allocate them here; on the device they are at `target`."""
        self._cuda, self._target = cuda, target
        self._bits = cuda.host_array((num_slots, num_bytes), np.uint8)

    def put(self, slot: int, bits: npt.NDArray[np.uint8]) -> None:
        """Write a slot's mask."""
        self._bits[slot, : bits.size] = bits[: self._bits.shape[1]]

    def upload(self, slots: Sequence[int]) -> None:
        """Enqueue the upload of these slots' masks, adjoining ones in one copy."""
        size = self._bits.shape[1]
        for _, run in groupby(enumerate(sorted(slots)), key=lambda item: item[1] - item[0]):
            together = [slot for _, slot in run]
            part = self._bits[together[0] : together[-1] + 1]
            self._cuda.to_device(self._target + together[0] * size, part)
