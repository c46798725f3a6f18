"""One step's tokens for all sequences, chosen on the GPU from logits that stay there.

Everything is enqueued on the engine's stream. `choose` leaves the tokens on the device, where
`feed` takes the next step's input from; `chosen` waits for one step's tokens alone. At most one
`choose` waits for its `chosen`.
Not executed on a GPU by its authors: tests run the kernels in an emulator, as late as CUDA may.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.library.draw import DrawStatus
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.device.staging import Staging
from nemotrt.engines.backends.tensorrt.draws.draw import DeviceDraw
from nemotrt.engines.backends.tensorrt.draws.masks import Masks
from nemotrt.engines.backends.tensorrt.draws.scored_rows import ScoredRows
from nemotrt.engines.backends.tensorrt.draws.slot_tables import SlotTables
from nemotrt.engines.backends.tensorrt.draws.tables import (
    MAX_VOCAB,
    SLOT_BYTES,
    CTurn,
    num_slices,
    slot_bytes,
)
from nemotrt.engines.runtime.sampling.draws import Draws, Turn, open_draws
from nemotrt.engines.runtime.sampling.params import SampledToken, SamplingParams
from nemotrt.errors import ConfigError

WARP = 32
# How wide the kernels' blocks are at most; no token depends on it.
SLICE_WARPS = 8  # of the kernels that go by slices; kernels/turn.h
CHOOSE_WARPS = 32  # of a block that chooses
FEED_THREADS = 128  # of a block of feed_tokens; kernels/feed.h


@dataclass(frozen=True, slots=True)
class ParkedDraw:
    """A sequence that has no slot, and what its slot's tables held."""

    draw: DeviceDraw
    tables: dict[str, npt.NDArray[np.uint8]]


class DeviceDraws:
    """Chooses tokens on the device; not thread-safe.

    Its memory is `cuda`'s, and is freed with it.
    """

    def __init__(
        self,
        cuda: Cuda,
        library: KernelLibrary,
        vocab_size: int,
        num_slots: int,
        *,
        scorer: Draws | None = None,
        slice_warps: int = SLICE_WARPS,
        choose_warps: int = CHOOSE_WARPS,
    ) -> None:
        """Allocate everything, also what only some requests need: none fails in its middle.

        Args:
            cuda: the engine's.
            library: the kernels (open_sampler_library).
            vocab_size: logits of a row.
            num_slots: sequences at most.
            scorer: what scores rows for log-probabilities; None opens one of its own.
            slice_warps: of the blocks of kernels that go by slices.
            choose_warps: of the blocks that choose.

        Raises:
            ConfigError: a vocabulary whose masses would not fit.
            EnvironmentUnfitError: the GPU has not that much memory.
        """
        if not 1 <= vocab_size <= MAX_VOCAB:
            raise ConfigError(
                f"sampling on the GPU takes a vocabulary of 1 to {MAX_VOCAB}, got {vocab_size}."
            )
        self.vocab_size, self._num_slots = vocab_size, num_slots
        self._cuda, self._library = cuda, library
        self._slice_warps, self._choose_warps = slice_warps, choose_warps
        self._tables = SlotTables(cuda, vocab_size, num_slots)
        self._turns_at = cuda.allocate(num_slots * ctypes.sizeof(CTurn)).address
        self._fed_at = cuda.allocate(num_slots * SLOT_BYTES).address
        self._turns = cuda.host_array((num_slots, ctypes.sizeof(CTurn)), np.uint8)
        self._results = cuda.host_array((num_slots, 2), np.int32)
        mask_bytes = slot_bytes(vocab_size)["masks"]
        self._masks = Masks(cuda, num_slots, mask_bytes, self._tables.at["masks"])
        self._rows = ScoredRows(cuda, vocab_size, num_slots, scorer or open_draws(self))
        self._fed = Staging(cuda, 2, num_slots * SLOT_BYTES)
        self._next_fed = 0
        self._event = cuda.event()
        self._due: tuple[Turn, ...] | None = None  # of choose, until chosen

    @property
    def tokens_address(self) -> int:
        """Where the last token of each slot is: int64 [num_slots], 0 for none yet."""
        return self._tables.at["tokens"]

    def open(
        self, slot: int, params: SamplingParams, prompt: Sequence[int], ends: tuple[int, ...]
    ) -> DeviceDraw:
        """Return a sequence, and enqueue the filling of the tables that its settings need.

        The slot's former owner may not be in a later `choose`; in one that is due it may.

        Args:
            slot: the sequence's own while it lasts.
            params: how its tokens are chosen.
            prompt: its tokens.
            ends: what may not come before `min_tokens` are out.

        Raises:
            ConfigError: a biased token that is none.
        """
        self._check_slot(slot)
        params.check_ids(self.vocab_size)
        draw = DeviceDraw(slot, params, ends, self.vocab_size)
        self._tables.fill(draw, params, prompt)
        return draw

    def park(self, draw: DeviceDraw) -> ParkedDraw:
        """Return a sequence without its slot; waits for its tables.

        Raises:
            RuntimeError: a choice is due.
        """
        if self._due is not None:
            raise RuntimeError("park() before chosen() of the step before.")
        return ParkedDraw(draw, self._tables.take(draw))

    def resume(self, parked: ParkedDraw, slot: int) -> DeviceDraw:
        """Return a parked sequence, and enqueue the filling of its slot's tables."""
        self._check_slot(slot)
        parked.draw.move(slot)
        self._tables.put(parked.draw, parked.tables)
        return parked.draw

    def choose(self, logits_address: int, turns: Sequence[Turn]) -> None:
        """Enqueue the choice of each sequence's next token.

        Args:
            logits_address: float32 [rows, vocab] on the device, as they are when the stream comes
                to it; unchanged until it has.
            turns: the sequences, each once; a mask has at least one token.

        Raises:
            ConfigError: a forced token that is none; nothing has changed.
            RuntimeError: the choice before has not been asked for.
        """
        self._check(turns)
        masked = []
        c_turns = (CTurn * self._num_slots).from_address(self._turns.ctypes.data)
        for index, turn in enumerate(turns):
            draw = turn.draw
            bits = draw.set_rule(turn.rule)
            if bits is not None:
                self._masks.put(draw.slot, bits)
                masked.append(draw.slot)
            draw.c.row = turn.row
            c_turns[index] = draw.c
        self._due = tuple(turns)
        if turns:
            self._masks.upload(masked)
            self._cuda.to_device(self._turns_at, self._turns[: len(turns)])
            self._launch(logits_address, len(turns))
            self._cuda.to_host(self._results[: len(turns)], self._tables.at["results"])
            self._rows.fetch(logits_address, turns)
        self._cuda.record(self._event)

    def _launch(self, logits_address: int, num_turns: int) -> None:
        """Enqueue the kernels."""
        arguments = (
            ctypes.c_void_p(self._turns_at),
            ctypes.c_void_p(logits_address),
            self._tables.c,
        )
        grid = (-(-num_slices(self.vocab_size) // self._slice_warps), num_turns, 1)
        stream = self._cuda.stream
        for name in ("edit_logits", "weigh_scores"):
            self._library.launch(name, grid, self._slice_warps * WARP, arguments, stream)
        grid = (num_turns, 1, 1)
        self._library.launch("choose_tokens", grid, self._choose_warps * WARP, arguments, stream)

    def chosen(self) -> list[SampledToken | None]:
        """Wait for the tokens that are due, and for no later work; None where logits fail.

        Raises:
            RuntimeError: none are due.
        """
        if self._due is None:
            raise RuntimeError("chosen() without choose().")
        self._cuda.wait(self._event)
        turns, self._due = self._due, None
        tokens, statuses = self._results[: len(turns)].T.tolist()
        scores = self._rows.scores(turns, tokens) if turns else {}
        choices: list[SampledToken | None] = []
        for index, (turn, token, status) in enumerate(zip(turns, tokens, statuses, strict=True)):
            if status != DrawStatus.DRAWN:
                choices.append(None)
                continue
            turn.draw.c.position += 1
            score = scores.get(index)
            top = (score.logprob, score.top_logprobs) if score is not None else ()
            choices.append(SampledToken(token, *top))
        return choices

    def feed(self, ids_address: int, slots: Sequence[int]) -> None:
        """Enqueue the next step's input: the last token of each slot.

        Args:
            ids_address: int64 [len(slots)] on the device.
            slots: whose token each gets; -1 leaves an id as it is.
        """
        for slot in slots:
            if slot != -1:
                self._check_slot(slot)
        if not slots or len(slots) > self._num_slots:
            raise ValueError(f"{len(slots)} ids to feed, of 1 to {self._num_slots}.")
        self._next_fed = 1 - self._next_fed
        staged = self._fed.take(self._next_fed).view(np.int32)[: len(slots)]
        staged[:] = slots
        self._cuda.to_device(self._fed_at, staged)
        self._fed.give_back(self._next_fed)
        places = (self.tokens_address, self._fed_at, ids_address)
        arguments = (*map(ctypes.c_void_p, places), ctypes.c_int32(len(slots)))
        grid = (-(-len(slots) // FEED_THREADS), 1, 1)
        self._library.launch("feed_tokens", grid, FEED_THREADS, arguments, self._cuda.stream)

    def _check(self, turns: Sequence[Turn]) -> None:
        """Raise unless the turns can be taken now."""
        if self._due is not None:
            raise RuntimeError("choose() before chosen() of the step before.")
        if len({turn.draw.slot for turn in turns}) != len(turns):
            raise ValueError("two turns of one slot.")
        for turn in turns:
            turn.draw.check(turn.rule)

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self._num_slots:
            raise ValueError(f"slot {slot} of {self._num_slots}.")
