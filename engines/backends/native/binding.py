"""The library's entry points; the same as in step/program.h."""

import ctypes
import os
from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_char_p, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from nemotrt.engines.backends.native.library.cores import core_order
from nemotrt.engines.backends.native.library.library import ERROR_BYTES, load_library
from nemotrt.engines.backends.native.structures import CBatch, CProgram, CSequence, array
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError


def check_program(spec: CProgram, folder: Path) -> None:
    """Raise ArtefactError if the library refuses a folder's program; states need no memory yet."""
    library = load_library()
    library.nemotrt_check.argtypes = (POINTER(CProgram), c_char_p, c_size_t)
    error = ctypes.create_string_buffer(ERROR_BYTES)
    if library.nemotrt_check(ctypes.byref(spec), error, ERROR_BYTES):
        raise _refusal(folder, error)


def open_program(spec: CProgram, folder: Path) -> c_void_p:
    """Return the library's handle of a folder's program, whose states have memory.

    Raises:
        ArtefactError: the library refuses the program.
    """
    library = load_library()
    library.nemotrt_open.restype = c_void_p
    library.nemotrt_open.argtypes = (POINTER(CProgram), c_char_p, c_size_t)
    error = ctypes.create_string_buffer(ERROR_BYTES)
    handle = library.nemotrt_open(ctypes.byref(spec), error, ERROR_BYTES)
    if not handle:
        raise _refusal(folder, error)
    return c_void_p(handle)


def _refusal(folder: Path, error: Any) -> ArtefactError:
    """Return the library's reason; a long name in it may end within a letter."""
    reason = error.value.decode(errors="replace")
    return ArtefactError(f"{folder}: the native step refuses the program: {reason}.")


def run_step(
    handle: c_void_p,
    sequences: Sequence[tuple[int, ...]],
    tokens: Any,
    logits: Any,
    seconds: Any,
) -> None:
    """Run one step.

    Args:
        handle: an open program.
        sequences: (slot, past, count, rows of logits wanted, is a draft, adapter) of each
            sequence; adapters count from 1, and 0 or nothing is none.
        tokens: all new tokens, int32.
        logits: float32 [rows wanted, vocabulary rounded up to 16], written here.
        seconds: float64 [operations], to which the time of each is added.

    Raises:
        ConfigError: the library refuses the batch; no state has changed.
    """
    library = load_library()
    library.nemotrt_step.argtypes = (c_void_p, POINTER(CBatch), c_char_p, c_size_t)
    items = array(CSequence, [CSequence(*sequence) for sequence in sequences])
    pointer = tokens.ctypes.data_as(POINTER(c_int32))
    batch = CBatch(items, pointer, logits.ctypes.data, seconds.ctypes.data)
    batch.num_sequences, batch.num_tokens = len(sequences), len(tokens)
    error = ctypes.create_string_buffer(ERROR_BYTES)
    code = library.nemotrt_step(handle, ctypes.byref(batch), error, ERROR_BYTES)
    if code:
        kind = ConfigError if code == 1 else EnvironmentUnfitError
        raise kind(f"the native step can't run this batch: {error.value.decode()}.")


def run_accept(handle: c_void_p, counts: Mapping[int, int]) -> None:
    """Have slots take as many tokens of the drafts that the last step fed them, at least one.

    Raises:
        ConfigError: the library refuses it; no state has changed.
    """
    library = load_library()
    library.nemotrt_accept.argtypes = (c_void_p, POINTER(CSequence), c_int32, c_char_p, c_size_t)
    items = array(CSequence, [CSequence(slot, 0, count) for slot, count in counts.items()])
    error = ctypes.create_string_buffer(ERROR_BYTES)
    if library.nemotrt_accept(handle, items, len(counts), error, ERROR_BYTES):
        raise ConfigError(f"the native step can't accept a draft: {error.value.decode()}.")


def pin_threads(handle: c_void_p, count: int) -> None:
    """Keep each of an open program's threads but the caller's on a core of its own.

    Raises:
        ConfigError: there are fewer CPUs than threads.
        EnvironmentUnfitError: the system refuses.
    """
    cpus = core_order(os.sched_getaffinity(0))
    if count > len(cpus):
        raise ConfigError(
            f"--pin-threads: {count} threads can't each have one of {len(cpus)} CPUs; "
            "give fewer --threads."
        )
    library = load_library()
    library.nemotrt_pin.argtypes = (c_void_p, POINTER(c_int32), c_int32)
    others = cpus[1:count]  # the first is left to the caller, which is not ours to pin
    if library.nemotrt_pin(handle, array(c_int32, others), len(others)):
        raise EnvironmentUnfitError("this system does not keep threads on CPUs: no --pin-threads.")


def close_program(handle: c_void_p) -> None:
    """Free an open program; its threads end."""
    library = load_library()
    library.nemotrt_close.argtypes = (c_void_p,)
    library.nemotrt_close.restype = None
    library.nemotrt_close(handle)
