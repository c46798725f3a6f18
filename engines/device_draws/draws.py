"""One step's tokens for all sequences, chosen on the GPU from logits that stay there.

Everything is enqueued on the engine's stream. `choose` leaves the tokens on the device, where
`feed` takes the next step's input from; `chosen` waits for one step's tokens alone. At most one
`choose` waits for its `chosen`.
Not executed on a GPU by its authors: tests run the kernels in an emulator, as late as CUDA may.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from nemotrt.engines.device_draws.draw import DeviceDraw
from nemotrt.engines.device_draws.staging import Staging
from nemotrt.engines.device_draws.tables import (
    BIASED,
    COUNTED,
    MAX_VOCAB,
    SEEN,
    SLOT_BYTES,
    CTables,
    CTurn,
    num_slices,
    slot_bytes,
)
from nemotrt.engines.draws import Draws, Turn, open_draws
from nemotrt.engines.native.draw import DrawStatus
from nemotrt.engines.sampling import Choice, SamplingParams, Score
from nemotrt.engines.tensorrt.cuda import Cuda
from nemotrt.engines.token_bits import set_bits
from nemotrt.errors import ConfigError

WARP = 32
STAGED = ("seen", "biased", "biases")  # of a slot's tables, what is uploaded as a sequence starts
FEED_THREADS = 128  # of a block of feed_tokens; kernels/feed.h


class Kernels(Protocol):
    """What launches the sampler's kernels: a KernelLibrary."""

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Sequence[Any],
        stream: int,
    ) -> None:
        """Enqueue a kernel; arguments are ctypes values, which are read at once."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How wide the kernels' blocks are; no token depends on it."""

    slice_warps: int = 8  # at most, of the kernels that go by slices; kernels/turn.h
    choose_warps: int = 32  # at most, of a block that chooses


class DeviceDraws:
    """Chooses tokens on the device; not thread-safe.

    Its memory is `cuda`'s, and is freed with it.
    """

    def __init__(
        self,
        cuda: Cuda,
        library: Kernels,
        vocab_size: int,
        num_slots: int,
        *,
        scorer: Draws | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        """Allocate everything, also what only some requests need: none fails in its middle.

        Args:
            cuda: the engine's.
            library: the kernels (open_sampler_library).
            vocab_size: logits of a row.
            num_slots: sequences at most.
            scorer: what scores rows for log-probabilities; None opens one of its own.
            blocks: how the kernels are launched.

        Raises:
            ConfigError: a vocabulary whose masses would not fit.
            EnvironmentUnfitError: the GPU has not that much memory.
        """
        if not 1 <= vocab_size <= MAX_VOCAB:
            raise ConfigError(
                f"sampling on the GPU takes a vocabulary of 1 to {MAX_VOCAB}, got {vocab_size}."
            )
        self.vocab_size, self._num_slots = vocab_size, num_slots
        self._cuda, self._library, self._blocks = cuda, library, blocks or Blocks()
        self._scorer = scorer or open_draws(self)
        self._slot_bytes = slot_bytes(vocab_size)
        self._at = {
            name: cuda.allocate(num_slots * size).address for name, size in self._slot_bytes.items()
        }
        self._tables = CTables(vocab=vocab_size, **self._at)
        self._turns_at = cuda.allocate(num_slots * ctypes.sizeof(CTurn)).address
        self._fed_at = cuda.allocate(num_slots * SLOT_BYTES).address
        self._turns = cuda.host_array((num_slots, ctypes.sizeof(CTurn)), np.uint8)
        self._results = cuda.host_array((num_slots, 2), np.int32)
        self._masks = cuda.host_array((num_slots, self._slot_bytes["masks"]), np.uint8)
        self._rows = cuda.host_array((num_slots, vocab_size), np.float32)  # for log-probabilities
        self._staging = Staging(cuda, num_slots, sum(map(self._slot_bytes.__getitem__, STAGED)))
        self._fed = Staging(cuda, 2, num_slots * SLOT_BYTES)
        self._next_fed = 0
        self._event = cuda.event()
        self._due: tuple[Turn, ...] | None = None  # of choose, until chosen
        cuda.zero(self._at["tokens"], num_slots * self._slot_bytes["tokens"])

    @property
    def tokens_address(self) -> int:
        """Where the last token of each slot is: int64 [num_slots], 0 for none yet."""
        return self._at["tokens"]

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
        if not all(0 <= token < self.vocab_size for token, _ in params.logit_bias):
            raise ConfigError(f"logit_bias ids must be 0 to {self.vocab_size - 1}.")
        draw = DeviceDraw(slot, params, ends, self.vocab_size)
        if draw.c.edits & COUNTED:
            self._cuda.zero(self._place("counts", slot), self._slot_bytes["counts"])
        if draw.c.edits & (SEEN | BIASED):
            self._fill(draw, params, prompt)
        return draw

    def _fill(self, draw: DeviceDraw, params: SamplingParams, prompt: Sequence[int]) -> None:
        """Enqueue the upload of what a sequence has seen, and of its biases."""
        piece = self._staging.take(draw.slot)
        seen, biased, biases = np.split(piece, np.cumsum([self._slot_bytes[x] for x in STAGED])[:2])
        if draw.c.edits & SEEN:
            seen[:] = 0
            set_bits(seen, prompt)
            self._cuda.to_device(self._place("seen", draw.slot), seen)
        if draw.c.edits & BIASED:
            pairs = sorted(
                params.logit_bias, key=lambda pair: pair[0]
            )  # one token's in their order
            for name, part, values in (
                ("biased", biased.view(np.int32), [token for token, _ in pairs]),
                ("biases", biases.view(np.float64), [bias for _, bias in pairs]),
            ):
                part[: len(values)] = values
                self._cuda.to_device(self._place(name, draw.slot), part[: len(values)])
        self._staging.give_back(draw.slot)

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
                self._masks[draw.slot, : bits.size] = bits[: self._masks.shape[1]]
                masked.append(draw.slot)
            draw.c.row = turn.row
            c_turns[index] = draw.c
        self._due = tuple(turns)
        if turns:
            self._upload_masks(sorted(masked))
            self._cuda.to_device(self._turns_at, self._turns[: len(turns)])
            self._launch(logits_address, len(turns))
            self._cuda.to_host(self._results[: len(turns)], self._at["results"])
            for row, turn in enumerate(self._scored()):
                source = logits_address + 4 * self.vocab_size * turn.row
                self._cuda.to_host(self._rows[row], source)
        self._cuda.record(self._event)

    def _launch(self, logits_address: int, num_turns: int) -> None:
        """Enqueue the kernels."""
        arguments = (
            ctypes.c_void_p(self._turns_at),
            ctypes.c_void_p(logits_address),
            self._tables,
        )
        slices, choosing = self._blocks.slice_warps, self._blocks.choose_warps
        grid = (-(-num_slices(self.vocab_size) // slices), num_turns, 1)
        stream = self._cuda.stream
        for name in ("edit_logits", "weigh_scores"):
            self._library.launch(name, grid, slices * WARP, arguments, stream)
        grid = (num_turns, 1, 1)
        self._library.launch("choose_tokens", grid, choosing * WARP, arguments, stream)

    def chosen(self) -> list[Choice | None]:
        """Wait for the tokens that are due, and for no later work; None where logits fail.

        Raises:
            RuntimeError: none are due.
        """
        if self._due is None:
            raise RuntimeError("chosen() without choose().")
        self._cuda.wait(self._event)
        turns, scores = self._due, self._scores()
        self._due = None
        choices: list[Choice | None] = []
        for turn, (token, status) in zip(turns, self._results.tolist(), strict=False):
            if status != DrawStatus.DRAWN:
                choices.append(None)
                continue
            turn.draw.c.position += 1
            found = scores.get(turn.draw.slot)
            if found is None:
                choices.append(Choice(token))
            else:
                choices.append(Choice(token, found.logprob, found.top_logprobs))
        return choices

    def _scored(self) -> list[Turn]:
        """Return the turns that are due whose log-probabilities are asked for, row by row."""
        turns = [turn for turn in self._due or () if turn.draw.num_top is not None]
        return sorted(turns, key=lambda turn: turn.draw.num_top)

    def _scores(self) -> dict[int, Score | None]:
        """Return what the rows that came back say of their tokens, by slot."""
        tokens = {
            turn.draw.slot: token
            for turn, token in zip(self._due or (), self._results[:, 0], strict=False)
        }
        scores: dict[int, Score | None] = {}
        for num_top, group in groupby(self._scored(), key=lambda turn: turn.draw.num_top):
            slots = [turn.draw.slot for turn in group]
            rows = self._rows[len(scores) : len(scores) + len(slots)]
            found = self._scorer.score(rows, [int(tokens[slot]) for slot in slots], num_top)
            scores.update(zip(slots, found, strict=True))
        return scores

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

    def _place(self, table: str, slot: int) -> int:
        """Return where a slot's part of a table is."""
        return self._at[table] + slot * self._slot_bytes[table]

    def _upload_masks(self, slots: Sequence[int]) -> None:
        """Enqueue the upload of these slots' masks, adjoining ones in one copy."""
        for _, run in groupby(enumerate(slots), key=lambda item: item[1] - item[0]):
            together = [slot for _, slot in run]
            first, last = together[0], together[-1]
            self._cuda.to_device(self._place("masks", first), self._masks[first : last + 1])
