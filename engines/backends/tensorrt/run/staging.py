"""A batch's inputs on their way to the device: page-locked memory that copies read later.

A copy is enqueued and reads its source in the stream's turn, which may be after the host has gone
on to the next batch. So there are several sets, and a set is written again only once its copies are
done, which an event behind them tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.run.cuda import Cuda

SETS = 3  # a step's decodes and a prompt chunk, while the next step's decodes are written


@dataclass(frozen=True, slots=True)
class Staging:
    """One set, and the event behind its copies."""

    input_ids: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    past: npt.NDArray[np.int64]
    event: int


class StagingRing:
    """The sets, and where on the device their content goes: `device` has the addresses."""

    def __init__(self, cuda: Cuda, num_ids: int, batch: int) -> None:
        """Allocate for `num_ids` tokens of `batch` sequences."""
        self._cuda = cuda
        self._sets = [
            Staging(
                input_ids=cuda.host_array((num_ids,), np.int64),
                lengths=cuda.host_array((batch,), np.int64),
                past=cuda.host_array((batch,), np.int64),
                event=cuda.event(),
            )
            for _ in range(SETS)
        ]
        sizes = {"input_ids": num_ids, "lengths": batch, "past": batch}
        self.device = {name: cuda.allocate(8 * size).address for name, size in sizes.items()}
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
        staging = self._sets[self._next]
        self._next = (self._next + 1) % SETS
        self._cuda.wait(staging.event)
        count = len(tokens)
        ids = staging.input_ids[: count * width].reshape(count, width)
        ids[...] = 0
        for line, own in zip(ids, tokens, strict=True):
            line[: len(own)] = own
        staging.lengths[:count] = [len(own) for own in tokens]
        staging.past[:count] = past
        self._cuda.to_device(self.device["input_ids"], ids)
        self._cuda.to_device(self.device["lengths"], staging.lengths[:count])
        self._cuda.to_device(self.device["past"], staging.past[:count])
        self._cuda.record(staging.event)
