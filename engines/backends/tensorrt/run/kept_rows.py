"""Rows of state on their way to page-locked memory and back, beside the steps.

A second stream makes the copies, so that a step waits for none that it need not:

- What a step writes over, SSM states and convolution windows, is copied within the device first,
  behind the last step, and leaves from there. Where the device has no memory for that, the next
  step waits until it has left.
- Keys and values leave from where they lie: steps write behind them. What clears or moves the row
  waits.
- A state that comes back waits for what last cleared or moved its row, not for the steps; what
  uses the row next waits for it.

Nobody on the host reads a state before it has arrived (`wait`). Whole pieces come and go between
the device and the memory that keeps them; what the host has made of some, by way of a few pieces.

Not executed on a GPU by its authors: tests run it over a stand-in whose streams do their work as
late as CUDA may, or as early.
"""

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from functools import cached_property
from itertools import accumulate

import numpy as np

from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.page_locked import PageLocked
from nemotrt.engines.backends.tensorrt.device.staging import Staging
from nemotrt.engines.backends.tensorrt.run.arrivals import (
    Arrivals,
    ArrivingState,
    ArrivingTokens,
)
from nemotrt.engines.backends.tensorrt.run.device_state import DeviceStates
from nemotrt.engines.backends.tensorrt.run.state_tensors import TOKEN_AXIS, StateTensor
from nemotrt.engines.runtime.kept_state import (
    PIECE_TOKENS,
    Array,
    CachedTokens,
    FixedState,
    SavedState,
    StateBytes,
)
from nemotrt.errors import EnvironmentUnfitError

# As what the host keeps a state's numbers: float32, or the bits of shorter ones.
NUMBERS = {size: np.dtype(name) for size, name in ((1, "u1"), (2, "u2"), (4, "f4"))}
NUM_STAGED = 2  # pieces that the host has made, under way to the device
log = logging.getLogger("nemotrt.engine")


class KeptRows(DeviceStates):
    """The states of all sequences, whose rows can be copied to the host and back."""

    def __init__(
        self,
        cuda: Cuda,
        tensors: list[StateTensor],
        num_rows: int,
        layout: StateLayout,
        scratch_rows: int = 0,
    ) -> None:
        """Allocate as DeviceStates does; what keeping takes, when something is kept."""
        super().__init__(cuda, tensors, num_rows, layout, scratch_rows)
        self._caches = [tensor for tensor in tensors if tensor.is_cache]
        self._side = cuda.another_stream()
        self._arrivals = Arrivals(self._side)
        self._memory = PageLocked(cuda, self._side)
        self._stepped, self._left = cuda.event(), cuda.event()
        self._settled = [cuda.event() for _ in range(num_rows)]  # cleared or moved
        self._copied = [cuda.event() for _ in range(num_rows)]
        self._leaving: set[int] = set()  # rows whose caches may still be read
        self._coming: set[int] = set()  # rows that may still be written
        self._next_staged = 0  # of what is staged
        for event in self._settled:
            cuda.record(event)

    @property
    def state_bytes(self) -> StateBytes:
        """What one row's copy costs on the host."""
        fixed = sum(tensor.row_bytes for tensor in self._moved)
        return StateBytes(fixed, sum(tensor.token_bytes() for tensor in self._caches))

    # What uses a row waits for its copies

    def bindings(self, rows: range, *, is_prompt: bool) -> tuple[int, dict[str, int]]:
        """Bring the rows to one phase, those that come back first; return as DeviceStates does."""
        self._await(self._coming.intersection(rows))
        return super().bindings(rows, is_prompt=is_prompt)

    def clear(self, row: int, tokens: int) -> None:
        """Enqueue zeros for a whole row, behind its copies."""
        self._await((row,))
        super().clear(row, tokens)
        self._cuda.record(self._settled[row])

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two whole rows, behind their copies."""
        self._await((first, second))
        super().swap(first, second, tokens)
        for row in (first, second):
            self._cuda.record(self._settled[row])

    def _await(self, rows: Collection[int]) -> None:
        """Have the steps wait for the copies of some rows."""
        for row in (self._leaving | self._coming).intersection(rows):
            self._cuda.follow(self._copied[row])
        self._leaving.difference_update(rows)
        self._coming.difference_update(rows)

    # To the host

    def read(self, row: int, start: int, tokens: int) -> SavedState:
        """Return a copy, under way, of a row that holds `tokens` tokens; of caches, from `start`.

        Raises:
            EnvironmentUnfitError: the host has no memory for it.
        """
        sizes, (num_bytes, per_token) = list(_sizes(tokens - start)), astuple(self.state_bytes)
        state = self._memory.take(num_bytes)
        memory = [self._memory.take(size * per_token) for size in sizes]
        self._await(self._coming.intersection({row}))
        stage = self._copied_state(row)
        self._cuda.record(self._stepped)
        self._side.follow(self._stepped)
        ends = list(accumulate(sizes, initial=start))
        pieces = [
            tuple(self._fetch_tokens(row, piece, first, size))
            for piece, first, size in zip(memory, ends, sizes, strict=False)
        ]
        arrays = tuple(_split(state, self._moved, [tensor.row for tensor in self._moved]))
        self._fetch_state(row, state, arrays, stage)
        copy = self._arrivals, self._arrivals.next()
        axes = (TOKEN_AXIS,) * len(self._caches)
        caches = (ArrivingTokens(p, n, axes, *copy) for p, n in zip(pieces, sizes, strict=True))
        return SavedState(ArrivingState(arrays, *copy), tuple(caches))

    @cached_property
    def _stage(self) -> int | None:
        """Where on the device a row's states are copied first; None where there is no room."""
        try:
            return self._cuda.allocate(self.state_bytes.per_sequence).address
        except EnvironmentUnfitError as error:
            log.warning("steps wait for states that are kept: %s", error)
            return None

    def _copied_state(self, row: int) -> int | None:
        """Enqueue, behind the last step, copies of a row's states within the device."""
        if not self._moved or self._stage is None:
            return None
        self._cuda.follow(self._left)  # what was copied there before has left
        target = self._stage
        for tensor in self._moved:
            self._cuda.copy(target, self.address(tensor, row, self.phase[row]), tensor.row_bytes)
            target += tensor.row_bytes
        return self._stage

    def _fetch_state(
        self, row: int, state: Array, arrays: Sequence[Array], stage: int | None
    ) -> None:
        """Enqueue copies to the host, behind those of the caches; note when the row is read."""
        if stage is None:
            for tensor, array in zip(self._moved, arrays, strict=True):
                self._side.to_host(array, self.address(tensor, row, self.phase[row]))
        self._side.record(self._copied[row])
        self._leaving.add(row)
        if stage is not None:
            self._side.to_host(state, stage)
            self._side.record(self._left)
        elif self._moved:
            self._await((row,))  # the next step writes over what is being read

    def _fetch_tokens(self, row: int, piece: Array, start: int, size: int) -> Iterator[Array]:
        """Enqueue copies of some tokens' caches to the host; yield where each comes to lie."""
        shapes = [tensor.of_tokens(size) for tensor in self._caches]
        for tensor, array in zip(self._caches, _split(piece, self._caches, shapes), strict=True):
            self._side.to_host(array, self._token(tensor, row, start), tensor.head_bytes)
            yield array

    # To the device

    def write(self, row: int, fixed: FixedState, caches: Sequence[CachedTokens]) -> None:
        """Give a row that is zero a state that was read, its caches one behind the other."""
        self._side.follow(self._settled[row])
        self.phase[row] = self._current
        for tensor, array in zip(self._moved, fixed.arrays, strict=True):
            with self._locked(fixed, array, tensor) as source:
                self._side.to_device(self.address(tensor, row, self._current), source)
        start = 0
        for piece in caches:
            for tensor, array in zip(self._caches, piece.arrays, strict=True):
                with self._locked(piece, array, tensor) as source:
                    self._side.to_device(self._token(tensor, row, start), source, tensor.head_bytes)
            start += piece.num_tokens
        self._side.record(self._copied[row])
        self._coming.add(row)

    @contextmanager
    def _locked(
        self, part: FixedState | CachedTokens, array: Array, tensor: StateTensor
    ) -> Iterator[Array]:
        """Yield a part's array in page-locked memory, for copies that the block enqueues."""
        if isinstance(part, ArrivingState | ArrivingTokens):
            yield array
            return
        index, self._next_staged = self._next_staged, (self._next_staged + 1) % NUM_STAGED
        piece = self._staging.take(index)[: array.size * tensor.item_bytes]
        source = piece.view(NUMBERS[tensor.item_bytes]).reshape(array.shape)
        source[...] = array  # what was halved has its own number format again
        yield source
        self._staging.give_back(index)

    @cached_property
    def _staging(self) -> Staging:
        """The pieces on the way to the device of what the host has made."""
        sizes = [tensor.row_bytes for tensor in self._moved]
        sizes += [tensor.token_bytes(PIECE_TOKENS) for tensor in self._caches]
        return Staging(self._cuda, NUM_STAGED, max(sizes), self._side)

    def _token(self, tensor: StateTensor, row: int, token: int) -> int:
        """Return where a token's part of a cache lies, of the first head."""
        return self.address(tensor, row, 0) + tensor.token_offset(token)


def _sizes(num_tokens: int) -> Iterator[int]:
    """Yield the tokens of each piece: whole ones, then powers of two, so that sizes are few."""
    size = PIECE_TOKENS
    while num_tokens:
        while size <= num_tokens:
            yield size
            num_tokens -= size
        size //= 2


def _split(
    piece: Array, tensors: Sequence[StateTensor], shapes: Sequence[tuple[int, ...]]
) -> Iterator[Array]:
    """Yield each tensor's part of a piece of memory, in which they stand one behind the other."""
    start = 0
    for tensor, shape in zip(tensors, shapes, strict=True):
        end = start + math.prod(shape) * tensor.item_bytes
        yield piece[start:end].view(NUMBERS[tensor.item_bytes]).reshape(shape)
        start = end
