"""A batch's inputs on their way to the device, a few batches deep."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.staging import Staging

DEPTH = 3  # a step's decodes and a prompt chunk, while the next step's decodes are written
ITEM_BYTES = 8  # int64


class BatchInputs:
    """Where on the device a batch's inputs go: `device` has the address of each by name."""

    def __init__(self, cuda: Cuda, num_ids: int, batch: int) -> None:
        """Allocate for `num_ids` tokens of `batch` sequences."""
        self._cuda = cuda
        sizes = {"input_ids": num_ids, "lengths": batch, "past": batch}
        self._ends = np.cumsum(list(sizes.values()))
        self._staging = Staging(cuda, DEPTH, int(self._ends[-1]) * ITEM_BYTES)
        self.device = {name: cuda.allocate(n * ITEM_BYTES).address for name, n in sizes.items()}
        self._next = 0

    def send(
        self, tokens: Sequence[Sequence[int]], width: int, past: npt.NDArray[np.int64]
    ) -> None:
        """Enqueue a batch's inputs.

        Args:
            tokens: each sequence's own.
            width: what each is padded to.
            past: tokens that each holds.
        """
        index, self._next = self._next, (self._next + 1) % DEPTH
        piece = self._staging.take(index).view(np.int64)
        ids, lengths, held = np.split(piece, self._ends[:-1])
        count = len(tokens)
        table = ids[: count * width].reshape(count, width)
        table[...] = 0
        for line, own in zip(table, tokens, strict=True):
            line[: len(own)] = own
        lengths[:count] = [len(own) for own in tokens]
        held[:count] = past
        self._cuda.to_device(self.device["input_ids"], table)
        self._cuda.to_device(self.device["lengths"], lengths[:count])
        self._cuda.to_device(self.device["past"], held[:count])
        self._staging.give_back(index)
