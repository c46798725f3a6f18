"""Which tokens may come in each slot: bits in page-locked memory, uploaded where they changed."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda


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
