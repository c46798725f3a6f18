"""An open native engine: mapped weights, one row of state a slot, and the fused step."""

import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.artefact.options import WeightPages
from nemotrt.engines.backends.native.adapters import NO_ADAPTERS, LoadedAdapters
from nemotrt.engines.backends.native.binding import (
    check_program,
    close_program,
    open_program,
    pin_threads,
    run_accept,
    run_step,
)
from nemotrt.engines.backends.native.library.library import InstructionSet
from nemotrt.engines.backends.native.pages import PageUse, map_weights, page_use
from nemotrt.engines.backends.native.program.program import (
    WEIGHTS_FILE,
    OperationKind,
    Program,
    read_program,
    round_up,
)
from nemotrt.engines.backends.native.structures import program_spec
from nemotrt.engines.checkpoint.lora.adapter import Adapter
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.state.kept_slots import KeptSlots
from nemotrt.engines.runtime.state.state_pool import StateBuffer, StatePool
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.mapped_file import MappedFile

PASS_TOKENS = 256  # a step of more tokens runs in several passes; results are the same bits
HUGE_PAGE_WORTH_BYTES = 1 << 20  # a slot's state of one layer, from which huge pages pay


class NativeEngine(KeptSlots):
    """Decodes and prompt chunks run together; a slot's state stays where it is.

    A token's result does not depend on its company, its chunk or the number of threads.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        num_threads: int | None = None,
        isa: InstructionSet = InstructionSet.AUTO,
        max_draft: int = 0,
        weight_pages: WeightPages = WeightPages.LAZY,
        pins_threads: bool = False,
        adapters: Mapping[str, Adapter] = NO_ADAPTERS,
    ) -> None:
        """Open the program in `folder`.

        Args:
            folder: an engine directory.
            limits: those it was built for.
            num_threads: defaults to the cores of this process.
            isa: which kernels.
            max_draft: tokens of a draft at most; what is noted of them takes memory.
            weight_pages: when the weights come into memory.
            pins_threads: each thread but the caller's stays on a core of its own.
            adapters: that slots may have, by name.

        Raises:
            ArtefactError: the folder holds no program, or a damaged one, or not for these limits.
            ConfigError: an adapter changes what no linear of the program is, there is one memory
                node to interleave over, or are too few cores.
            EnvironmentUnfitError: the system refuses where memory or threads shall be.
        """
        self._handle: ctypes.c_void_p | None = None
        self._pid = os.getpid()
        program = read_program(folder)
        self._weights = map_weights(folder / WEIGHTS_FILE, weight_pages)
        self._mapped = MappedFile(folder / WEIGHTS_FILE)
        if program.max_seq_len != limits.max_seq_len:
            raise ArtefactError(
                f"{folder}: the program has another max_seq_len; build the engine again."
            )
        rows = limits.max_batch_size
        self.pass_tokens = _pass_tokens(limits)
        self.num_threads = num_threads or len(os.sched_getaffinity(0))
        self._loaded = LoadedAdapters(adapters, program)
        spec = program_spec(
            program,
            self._loaded.table,
            weights=self._weights.ctypes.data,
            weights_bytes=self._weights.size,
            max_slots=rows,
            max_tokens=self.pass_tokens,
            max_draft=min(max_draft, limits.chunk_tokens),
            num_threads=self.num_threads,
            isa=isa,
        )
        check_program(spec, folder)
        self._states = _state_pool(program, rows)
        for index, state in enumerate(self._states.buffers):
            spec.states[index].data = state.array.ctypes.data
        self._handle = open_program(spec, folder)
        if pins_threads:
            pin_threads(self._handle, self.num_threads)
        super().__init__(limits, program.vocab_size, self._states)
        self.max_draft = spec.max_draft
        self._adapter = [0] * rows  # of each slot, counted from 1
        self._drafted: dict[int, int] = {}  # tokens of drafts that nobody has accepted, by slot
        self.operations = program.operations
        self.seconds = np.zeros(len(program.operations))  # spent in each operation so far

    @property
    def team(self) -> ctypes.c_void_p:
        """The program whose threads a sampler shares, between steps."""
        assert self._handle is not None
        return self._handle

    def page_use(self) -> tuple[PageUse | None, PageUse | None]:
        """Return what of the weights and of the states is in memory, where the system tells."""
        states = [buffer.array for buffer in self._states.buffers]
        return page_use([self._weights]), page_use(states)

    def weights_written(self) -> None:
        """Note that the caller itself has written into the weights file."""
        self._mapped.renew()

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Feed the slots, as many tokens a pass as the working memory holds."""
        self.check(feeds)
        for feed in feeds:
            self._undo(feed.slot)
        assert self._handle is not None
        num_rows = sum(feed.num_logits for feed in feeds)
        logits = np.empty((num_rows, round_up(self.vocab_size)), np.float32)
        row = 0
        for pieces in self._passes(feeds):
            sequences = [
                (
                    *(p.slot, self.held[p.slot], len(p.tokens), p.num_logits, p.is_draft),
                    self._adapter[p.slot],
                )
                for p in pieces
            ]
            tokens = np.array([token for piece in pieces for token in piece.tokens], np.int32)
            run_step(self._handle, sequences, tokens, logits[row:], self.seconds)
            self.advance([piece for piece in pieces if not piece.is_draft])
            self._drafted |= {p.slot: len(p.tokens) for p in pieces if p.is_draft}
            row += sum(piece.num_logits for piece in pieces)
        self._mapped.check()
        return logits[:, : self.vocab_size]

    def _passes(self, feeds: Sequence[Feed]) -> Iterator[list[Feed]]:
        """Cut the feeds into passes of at most `pass_tokens` tokens; pieces may bring no logits.

        A draft is one piece, as its state waits for all of it.
        """
        pieces: list[Feed] = []
        room = self.pass_tokens
        for feed in feeds:
            done, unheard = 0, len(feed.tokens) - feed.num_logits  # tokens without logits
            while done < len(feed.tokens):
                if not room or (feed.is_draft and room < len(feed.tokens)):
                    yield pieces
                    pieces, room = [], self.pass_tokens
                tokens = feed.tokens[done : done + room]
                done += len(tokens)
                room -= len(tokens)
                num_logits = max(0, min(len(tokens), done - unheard))
                pieces.append(Feed(feed.slot, tokens, num_logits, feed.is_draft))
        if pieces:
            yield pieces

    def accept(self, counts: Mapping[int, int]) -> None:
        """Bring the slots' states behind the accepted tokens of their drafts; undo the others."""
        for slot, count in counts.items():
            drafted = self._drafted.get(slot, 0)
            if not 1 <= count <= drafted:
                raise ConfigError(f"slot {slot} has a draft of {drafted} tokens, not {count}.")
        if not counts:
            return
        assert self._handle is not None
        run_accept(self._handle, counts)
        for slot, count in counts.items():
            self.held[slot] += count
            self._drafted[slot] -= count
            self._undo(slot)

    @property
    def adapters(self) -> Sequence[str]:
        """The names of the adapters that slots may have."""
        return self._loaded.names

    @property
    def adapter_bytes(self) -> int:
        """Memory of all adapters."""
        return self._loaded.num_bytes

    def adapt(self, slot: int, name: str) -> None:
        """Have an empty slot's tokens go through an adapter, until it is free."""
        self._table.check(slot)
        self._adapter[slot] = self._loaded.number(name)

    def release(self, slot: int) -> None:
        """Free a slot; its state becomes zero, and it has no adapter."""
        self._undo(slot)
        super().release(slot)
        self._adapter[slot] = 0

    def _undo(self, slot: int) -> None:
        """Take what is left of a draft out of the caches: they are zero behind what is held."""
        drafted, held = self._drafted.pop(slot, 0), self.held[slot]
        for buffer in self._states.buffers if drafted else ():
            if buffer.token_axis is not None:
                buffer.of_tokens(slot, held, held + drafted)[...] = 0

    def close(self) -> None:
        """End the threads and drop the buffers."""
        if self._handle is not None:
            if os.getpid() == self._pid:  # a fork has no threads: it would wait for their end
                close_program(self._handle)
            self._handle = None
        self._states.close()

    def __del__(self) -> None:
        """End the threads of an engine that nobody closed."""
        if getattr(self, "_handle", None) is not None:
            self.close()


def _pass_tokens(limits: Limits) -> int:
    """Return the tokens of a pass: a chunk beside a token of each other slot takes no more passes.

    Three tokens that are left over would cost a pass of their own: all weights once more.
    """
    rows, chunk = limits.max_batch_size, limits.chunk_tokens
    num_passes = -(-chunk // PASS_TOKENS)
    enough = -(-(chunk + rows - 1) // num_passes)
    return max(rows, min(max(PASS_TOKENS, enough), rows * chunk))


def _state_pool(program: Program, rows: int) -> StatePool:
    """Return zeros for each state; what attention keeps is [heads, tokens, a token's] a row."""
    heads = {
        index: operation.sizes[1]
        for operation in program.operations
        if operation.kind is OperationKind.ATTENTION
        for index in operation.states
    }
    pool = StatePool()
    for index, spec in enumerate(program.states):
        shape: tuple[int, ...] = (spec.num_elements,)
        token_axis = None
        if index in heads:
            tokens = heads[index] * program.max_seq_len
            shape = heads[index], program.max_seq_len, spec.num_elements // tokens
            token_axis = 1
        state = StateBuffer.zeros(rows, shape, token_axis, spec.format.storage)
        if token_axis is None and state.row_bytes >= HUGE_PAGE_WORTH_BYTES:
            state.memory.madvise(mmap.MADV_HUGEPAGE)
        pool.buffers.append(state)
    return pool
