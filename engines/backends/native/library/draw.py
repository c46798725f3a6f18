"""The compiled sampler's structures and calls; the same as in step/sampling.h."""

import ctypes
import os
from array import array
from collections.abc import Sequence
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.library.library import (
    ERROR_BYTES,
    InstructionSet,
    load_library,
)
from nemotrt.errors import ConfigError, EnvironmentUnfitError

BLOCK = 256  # bits of a vocabulary are padded to whole blocks


class DrawStatus(IntEnum):
    """How a draw ended."""

    DRAWN = 0
    NOT_FINITE = 1
    NO_TOKEN = 2


class CDraw(Structure):
    """One sequence's settings and memory."""

    _fields_ = (
        ("allowed", c_void_p),
        ("seen", c_void_p),
        ("counted", c_void_p),
        ("counts", c_void_p),
        ("biased", c_void_p),
        ("biases", c_void_p),
        ("ends", c_void_p),
        ("top_ids", c_void_p),
        ("top_logprobs", c_void_p),
        ("seed", c_uint64),
        ("position", c_uint64),
        ("temperature", c_double),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition", c_double),
        ("presence", c_double),
        ("frequency", c_double),
        ("logprob", c_double),
        ("rank", c_int64),
        ("top_k", c_int64),
        ("num_counted", c_int32),
        ("num_biased", c_int32),
        ("num_ends", c_int32),
        ("min_tokens", c_int32),
        ("num_top", c_int32),
        ("wants_rank", c_int32),
        ("forced", c_int32),
        ("token", c_int32),
        ("status", c_int32),
    )


class CDrawBatch(Structure):
    """Sequences, and the rows of logits that are theirs."""

    _fields_ = (
        ("draws", c_void_p),
        ("rows", c_void_p),
        ("logits", c_void_p),
        ("stride", c_int64),
        ("num_draws", c_int32),
        ("num_rows", c_int32),
        ("vocab_size", c_int32),
    )


class DrawEngine:
    """The compiled sampler of one vocabulary, with the working memory of its threads."""

    def __init__(
        self,
        vocab_size: int,
        num_threads: int,
        engine: c_void_p | None = None,
        isa: InstructionSet = InstructionSet.AUTO,
    ) -> None:
        """Open it.

        Args:
            vocab_size: logits of a row.
            num_threads: the engine's, or of its own.
            engine: an open program whose threads to use; None starts some. The sampler then must
                not run beside a step, nor after the program's end.
            isa: which kernels.

        Raises:
            EnvironmentUnfitError: there is no library, or this CPU lacks the instruction set.
        """
        self._handle: c_void_p | None = None
        self._pid = os.getpid()
        self._library = library = load_library()
        library.nemotrt_sampler_open.restype = c_void_p
        library.nemotrt_sampler_open.argtypes = (
            *(c_void_p, c_int32, c_int32, c_int32),
            *(c_char_p, c_size_t),
        )
        library.nemotrt_sample.argtypes = (c_void_p, POINTER(CDrawBatch), c_char_p, c_size_t)
        library.nemotrt_sampler_close.argtypes = (c_void_p,)
        library.nemotrt_sampler_close.restype = None
        self.vocab_size = vocab_size
        self._error = ctypes.create_string_buffer(ERROR_BYTES)
        handle = library.nemotrt_sampler_open(
            engine, vocab_size, num_threads, isa, self._error, ERROR_BYTES
        )
        if not handle:
            raise EnvironmentUnfitError(self._error.value.decode())
        self._handle = c_void_p(handle)

    def run(
        self, draws: Sequence[CDraw], logits: npt.NDArray[np.float32], rows: Sequence[int]
    ) -> None:
        """Choose the next token of each draw, from the row [vocab] of the logits that is its own.

        Raises:
            ConfigError: the library refuses the batch; nothing has changed.
        """
        stride = logits.strides[0] if len(logits) > 1 else 4 * self.vocab_size
        is_plain = logits.dtype == np.float32 and logits.strides[1] == 4 and stride % 4 == 0
        if not is_plain or 0 != stride < 4 * self.vocab_size:
            logits = np.ascontiguousarray(logits, np.float32)
            stride = logits.strides[0]
        # arrays whose addresses cost less than NumPy's: one token's own work takes 20 us
        addresses = array("Q", [ctypes.addressof(draw) for draw in draws])
        numbers = array("i", rows)
        batch = CDrawBatch(
            addresses.buffer_info()[0],
            numbers.buffer_info()[0],
            address(logits),
            stride // 4,
            len(draws),
            logits.shape[0],
            logits.shape[1],
        )
        code = self._library.nemotrt_sample(
            self._handle, ctypes.byref(batch), self._error, ERROR_BYTES
        )
        if code:
            raise ConfigError(f"the sampler refuses the batch: {self._error.value.decode()}.")

    def close(self) -> None:
        """Free the memory; threads of its own end."""
        if self._handle is not None:
            if os.getpid() == self._pid:  # a fork has no threads: it would wait for their end
                self._library.nemotrt_sampler_close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        """Free what nobody closed."""
        if getattr(self, "_handle", None) is not None:
            self.close()


def address(values: npt.NDArray[Any]) -> int:
    """Return where an array's data is; the caller keeps the array."""
    place: int = values.ctypes.data
    return place


def padded_bits(vocab_size: int) -> npt.NDArray[np.uint8]:
    """Return as many zero bits as a vocabulary's blocks have."""
    return np.zeros((vocab_size + BLOCK - 1) // BLOCK * (BLOCK // 8), np.uint8)
