"""The library's structures and entry points; the same as in step/program.h."""

import ctypes
import functools
import os
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from nemotrt.engines.backends.native.library.cores import core_order
from nemotrt.engines.backends.native.library.library import ERROR_BYTES, load_library
from nemotrt.engines.backends.native.program.program import (
    MAX_REALS,
    MAX_SIZES,
    MAX_SOURCES,
    MAX_STATES,
    MAX_TENSORS,
    Operation,
    Program,
    View,
)
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError

ABSENT = -1
PARTS = ("sources", "tensors", "states", "sizes", "reals")  # of an operation
SEQUENCE = ("slot", "past", "count", "num_logits", "is_draft", "adapter")  # of a CSequence
MOST = 1 << 62  # elements of a state that fit the library's integers


class CView(Structure):
    """A View."""

    _fields_ = (("buffer", c_int32), ("column", c_int32), ("width", c_int32))


class COp(Structure):
    """An Operation; unused places are 0."""

    _fields_ = (
        ("kind", c_int32),
        ("rows", c_int32),
        *((f"num_{part}", c_int32) for part in PARTS),
        ("target", CView),
        ("sources", CView * MAX_SOURCES),
        ("tensors", c_int32 * MAX_TENSORS),
        ("states", c_int32 * MAX_STATES),
        ("sizes", c_int32 * MAX_SIZES),
        ("reals", c_float * MAX_REALS),
    )


class CBuffer(Structure):
    """A BufferSpec."""

    _fields_ = (("format", c_int32), ("rows", c_int32), ("width", c_int32))


class CTensor(Structure):
    """A WeightTensor."""

    _fields_ = (
        *((name, c_int32) for name in ("kind", "rows", "columns")),
        ("offset", c_int64),
        ("name", c_char_p),
    )


class CState(Structure):
    """A state's buffer over all slots."""

    _fields_ = (
        ("slot_elements", c_int64),
        ("data", c_void_p),
        ("format", c_int32),
        ("name", c_char_p),
    )


class CLora(Structure):
    """What an adapter adds to one linear."""

    _fields_ = (("down", c_void_p), ("up", c_void_p), ("rank", c_int32))


class CProgram(Structure):
    """A program with its memory and limits."""

    _fields_ = (
        ("ops", POINTER(COp)),
        ("buffers", POINTER(CBuffer)),
        ("tensors", POINTER(CTensor)),
        ("states", POINTER(CState)),
        *((f"num_{name}", c_int32) for name in ("ops", "buffers", "tensors", "states")),
        ("weights", c_void_p),
        ("weights_bytes", c_int64),
        *(
            (name, c_int32)
            for name in (
                "logits",
                "vocab_size",
                "max_slots",
                "max_seq_len",
                "max_tokens",
                "max_draft",
                "num_threads",
                "isa",
            )
        ),
        ("loras", POINTER(CLora)),
        ("num_adapters", c_int32),
    )


class CSequence(Structure):
    """New tokens of one slot."""

    _fields_ = tuple((name, c_int32) for name in SEQUENCE)


class CBatch(Structure):
    """One step's input, and where its logits go."""

    _fields_ = (
        ("sequences", POINTER(CSequence)),
        ("tokens", POINTER(c_int32)),
        ("logits", c_void_p),
        ("seconds", c_void_p),
        ("num_sequences", c_int32),
        ("num_tokens", c_int32),
    )


@functools.cache
def numbers() -> dict[str, int]:
    """Return the library's number of each kind, format and set of rows, by its name."""
    library = load_library()
    library.nemotrt_names.restype = c_char_p
    lists = [line.split() for line in library.nemotrt_names().decode().splitlines()]
    return {name: number for names in lists for number, name in enumerate(names)}


def program_spec(
    program: Program, loras: Sequence[Sequence[CLora]] = (), **limits: int
) -> CProgram:
    """Return a program as the library reads it, its states without memory yet.

    Args:
        program: its operations, buffers, tensors and states.
        loras: of each operation, what each adapter adds to it; their memory is the caller's.
        limits: the remaining fields of CProgram.
    """
    code = numbers()
    buffers = [CBuffer(code[b.format], code[b.rows], b.width) for b in program.buffers]
    tensors = [
        CTensor(code[t.kind], t.rows, t.columns, t.offset, _text(t.name)) for t in program.tensors
    ]
    states = [
        CState(min(s.num_elements, MOST), None, code[s.format], _text(s.name))
        for s in program.states
    ]
    return CProgram(
        _array(COp, [_operation(operation) for operation in program.operations]),
        _array(CBuffer, buffers),
        _array(CTensor, tensors),
        _array(CState, states),
        *(len(program.operations), len(buffers), len(tensors), len(states)),
        logits=program.logits,
        vocab_size=program.vocab_size,
        max_seq_len=program.max_seq_len,
        loras=_array(CLora, [lora for own in loras for lora in own]),
        num_adapters=len(loras[0]) if loras else 0,
        **limits,
    )


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
    items = _array(CSequence, [CSequence(*sequence) for sequence in sequences])
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
    items = _array(CSequence, [CSequence(slot, 0, count) for slot, count in counts.items()])
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
    if library.nemotrt_pin(handle, _array(c_int32, others), len(others)):
        raise EnvironmentUnfitError("this system does not keep threads on CPUs: no --pin-threads.")


def close_program(handle: c_void_p) -> None:
    """Free an open program; its threads end."""
    library = load_library()
    library.nemotrt_close.argtypes = (c_void_p,)
    library.nemotrt_close.restype = None
    library.nemotrt_close(handle)


def _array(kind: Any, items: Sequence[Any]) -> Any:
    """Return a C array, which ctypes keeps alive with the structure that points to it."""
    return (kind * len(items))(*items)


def _view(view: View) -> CView:
    """Return a view in C."""
    return CView(view.buffer, view.column, view.width)


def _text(name: str) -> bytes:
    """Return a name for the library's messages."""
    return name.encode(errors="replace")


def _operation(operation: Operation) -> COp:
    """Return an operation in C."""
    return COp(
        numbers()[operation.kind],
        numbers()[operation.rows],
        *(len(getattr(operation, part)) for part in PARTS),
        _view(operation.target),
        (CView * MAX_SOURCES)(*map(_view, operation.sources)),
        (c_int32 * MAX_TENSORS)(*(ABSENT if t is None else t for t in operation.tensors)),
        (c_int32 * MAX_STATES)(*operation.states),
        (c_int32 * MAX_SIZES)(*operation.sizes),
        (c_float * MAX_REALS)(*operation.reals),
    )
