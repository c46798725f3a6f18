"""What the device keeps of each slot's sequence: tokens seen, counts, biases, the last token."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

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
# What a sequence has in which tables, by CTurn.edits.
TABLES = {COUNTED: ("counts",), SEEN: ("seen",), BIASED: ("biased", "biases")}


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

    def take(self, draw: DeviceDraw) -> dict[str, npt.NDArray[np.uint8]]:
        """Return what a sequence has in its slot's tables, by their names; waits for the stream."""
        parts = self._parts(draw)
        for name, part in parts.items():
            self._cuda.to_host(part, self._place(name, draw.slot))
        self._cuda.synchronize()
        return {name: part.copy() for name, part in parts.items()}

    def put(self, draw: DeviceDraw, tables: dict[str, npt.NDArray[np.uint8]]) -> None:
        """Enqueue the filling of a slot's tables with what was taken."""
        for name, part in self._parts(draw).items():
            part[...] = tables[name]
            self._cuda.to_device(self._place(name, draw.slot), part)
        self._moving.give_back(0)

    def _parts(self, draw: DeviceDraw) -> dict[str, npt.NDArray[np.uint8]]:
        """Return page-locked room for each table that a sequence has something in."""
        names = [name for bit, own in TABLES.items() if draw.c.edits & bit for name in own]
        ends = np.cumsum([self._bytes[name] for name in names])
        return dict(zip(names, np.split(self._moving.take(0), ends), strict=False))

    @cached_property
    def _moving(self) -> Staging:
        """Room for what a slot's tables hold; most servers never need it."""
        num_bytes = sum(self._bytes[name] for names in TABLES.values() for name in names)
        return Staging(self._cuda, 1, num_bytes)

    def _place(self, table: str, slot: int) -> int:
        """Return where a slot's part of a table is."""
        return self.at[table] + slot * self._bytes[table]
