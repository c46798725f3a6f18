"""An open native engine: mapped weights, one row of state a slot, and the fused step."""

import ctypes
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.binding import (
    check_program,
    close_program,
    open_program,
    program_spec,
    run_step,
)
from nemotrt.engines.backends.native.library.library import InstructionSet
from nemotrt.engines.backends.native.program.program import (
    WEIGHTS_FILE,
    OperationKind,
    Program,
    read_program,
    round_up,
)
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.state.kept_slots import KeptSlots
from nemotrt.engines.runtime.state.state_pool import StateBuffer, StatePool
from nemotrt.errors import ArtefactError

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
    ) -> None:
        """Open the program in `folder`; `num_threads` defaults to the cores of this process."""
        self._handle: ctypes.c_void_p | None = None
        program = read_program(folder)
        self._weights = _map_weights(folder / WEIGHTS_FILE)
        if program.max_seq_len != limits.max_seq_len:
            raise ArtefactError(f"{folder}: the program has another max_seq_len.")
        rows = limits.max_batch_size
        self.pass_tokens = max(rows, min(PASS_TOKENS, rows * limits.chunk_tokens))
        self.num_threads = num_threads or len(os.sched_getaffinity(0))
        spec = program_spec(
            program,
            weights=self._weights.ctypes.data,
            weights_bytes=self._weights.size,
            max_slots=rows,
            max_tokens=self.pass_tokens,
            num_threads=self.num_threads,
            isa=isa,
        )
        check_program(spec, folder)
        self._states = _state_pool(program, rows)
        for index, state in enumerate(self._states.buffers):
            spec.states[index].data = state.array.ctypes.data
        self._handle = open_program(spec, folder)
        super().__init__(limits, program.vocab_size, self._states)
        self.operations = program.operations
        self.seconds = np.zeros(len(program.operations))  # spent in each operation so far

    @property
    def team(self) -> ctypes.c_void_p:
        """The program whose threads a sampler shares, between steps."""
        assert self._handle is not None
        return self._handle

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Feed the slots, as many tokens a pass as the working memory holds."""
        self.check(feeds)
        assert self._handle is not None
        num_rows = sum(feed.num_logits for feed in feeds)
        logits = np.empty((num_rows, round_up(self.vocab_size)), np.float32)
        row = 0
        for pieces in self._passes(feeds):
            sequences = [
                (piece.slot, self.held[piece.slot], len(piece.tokens), piece.num_logits)
                for piece in pieces
            ]
            tokens = np.array([token for piece in pieces for token in piece.tokens], np.int32)
            run_step(self._handle, sequences, tokens, logits[row:], self.seconds)
            self.advance(pieces)
            row += sum(piece.num_logits for piece in pieces)
        return logits[:, : self.vocab_size]

    def _passes(self, feeds: Sequence[Feed]) -> Iterator[list[Feed]]:
        """Cut the feeds into passes of at most `pass_tokens` tokens; pieces may bring no logits."""
        pieces: list[Feed] = []
        room = self.pass_tokens
        for feed in feeds:
            done, unheard = 0, len(feed.tokens) - feed.num_logits  # tokens without logits
            while done < len(feed.tokens):
                if not room:
                    yield pieces
                    pieces, room = [], self.pass_tokens
                tokens = feed.tokens[done : done + room]
                done += len(tokens)
                room -= len(tokens)
                num_logits = max(0, min(len(tokens), done - unheard))
                pieces.append(Feed(feed.slot, tokens, num_logits))
        if pieces:
            yield pieces

    def close(self) -> None:
        """End the threads and drop the buffers."""
        if self._handle is not None:
            close_program(self._handle)
            self._handle = None
        self._states.close()

    def __del__(self) -> None:
        """End the threads of an engine that nobody closed."""
        if getattr(self, "_handle", None) is not None:
            self.close()


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


def _map_weights(path: Path) -> npt.NDArray[np.uint8]:
    """Return the weights file, mapped for reading."""
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} can't be mapped: {error}.") from error
