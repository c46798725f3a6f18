"""What the device keeps of each slot's sequence: tokens seen, counts, biases, the last token."""

from collections.abc import Sequence

import numpy as np

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.staging import Staging
from nemotrt.engines.backends.tensorrt.draws.draw import DeviceDraw
from nemotrt.engines.backends.tensorrt.draws.tables import (
    BIASED,
    COUNTED,
    SEEN,
    CTables,
    slot_bytes,
)
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.sampling.token_bits import set_bits

STAGED = ("seen", "biased", "biases")  # what is uploaded as a sequence starts


class SlotTables:
    """The tables, and the kernels' scratch memory: `c` is what kernels are given."""

    def __init__(self, cuda: Cuda, vocab_size: int, num_slots: int) -> None:
        """Allocate everything."""
        self._cuda = cuda
        self._bytes = slot_bytes(vocab_size)
        self.at = {
            name: cuda.allocate(num_slots * size).address for name, size in self._bytes.items()
        }
        self.c = CTables(vocab=vocab_size, **self.at)
        self._staging = Staging(cuda, num_slots, sum(self._bytes[name] for name in STAGED))
        cuda.zero(self.at["tokens"], num_slots * self._bytes["tokens"])

    def fill(self, draw: DeviceDraw, params: SamplingParams, prompt: Sequence[int]) -> None:
        """Enqueue what the settings of a new sequence need in its slot's tables."""
        slot, edits = draw.slot, draw.c.edits
        if edits & COUNTED:
            self._cuda.zero(self._place("counts", slot), self._bytes["counts"])
        if not edits & (SEEN | BIASED):
            return
        piece = self._staging.take(slot)
        seen, biased, biases = np.split(
            piece, np.cumsum([self._bytes[name] for name in STAGED])[:2]
        )
        if edits & SEEN:
            seen[:] = 0
            set_bits(seen, prompt)
            self._cuda.to_device(self._place("seen", slot), seen)
        if edits & BIASED:
            pairs = sorted(params.logit_bias, key=lambda pair: pair[0])  # stays in order per token
            for name, part, values in (
                ("biased", biased.view(np.int32), [token for token, _ in pairs]),
                ("biases", biases.view(np.float64), [bias for _, bias in pairs]),
            ):
                part[: len(values)] = values
                self._cuda.to_device(self._place(name, slot), part[: len(values)])
        self._staging.give_back(slot)

    def _place(self, table: str, slot: int) -> int:
        """Return where a slot's part of a table is."""
        return self.at[table] + slot * self._bytes[table]
