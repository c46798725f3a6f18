"""The library's structures and entry points; the same as in step/program.h."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_size_t, c_void_p
from typing import Any

from nemotrt.engines.backends.native.library.instruction_set import ERROR_BYTES
from nemotrt.engines.backends.native.library.library import load_library
from nemotrt.engines.backends.native.program.options import StateFormat
from nemotrt.engines.backends.native.program.program import (
    BufferFormat,
    Operation,
    OperationKind,
    Program,
    TensorKind,
    View,
)
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError

ABSENT = -1
KINDS = {kind: number for number, kind in enumerate(OperationKind)}
TENSOR_KINDS = {kind: number for number, kind in enumerate(TensorKind)}
FORMATS = {kind: number for number, kind in enumerate(BufferFormat)}
STATE_FORMATS = {kind: number for number, kind in enumerate(StateFormat)}
ROW_SETS = {"tokens": 0, "sequences": 1}


class CView(Structure):
    """A View."""

    _fields_ = (("buffer", c_int32), ("column", c_int32), ("width", c_int32))


class COp(Structure):
    """An Operation; unused places are -1."""

    _fields_ = (
        ("kind", c_int32),
        ("rows", c_int32),
        ("target", CView),
        ("sources", CView * 4),
        ("tensors", c_int32 * 4),
        ("states", c_int32 * 2),
        ("sizes", c_int32 * 4),
        ("reals", c_float * 2),
    )


class CBuffer(Structure):
    """A BufferSpec."""

    _fields_ = (("format", c_int32), ("rows", c_int32), ("width", c_int32))


class CTensor(Structure):
    """A TensorSpec."""

    _fields_ = (("kind", c_int32), ("rows", c_int32), ("columns", c_int32), ("offset", c_int64))


class CState(Structure):
    """A state's buffer over all slots."""

    _fields_ = (("slot_elements", c_int64), ("data", c_void_p), ("format", c_int32))


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
                "num_threads",
                "isa",
            )
        ),
    )


class CSequence(Structure):
    """New tokens of one slot."""

    _fields_ = tuple((name, c_int32) for name in ("slot", "past", "count", "num_logits"))


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


def open_program(
    program: Program, states: Sequence[tuple[int, int, int]], **limits: int
) -> c_void_p:
    """Return the library's handle of an open program.

    Args:
        program: its operations, buffers and tensors.
        states: (elements of a slot, address, format) of each state.
        limits: the remaining fields of CProgram.

    Raises:
        ArtefactError: the library refuses the program.
    """
    library = load_library()
    library.nemotrt_open.restype = c_void_p
    library.nemotrt_open.argtypes = (POINTER(CProgram), c_char_p, c_size_t)
    ops = [_operation(operation) for operation in program.operations]
    buffers = [CBuffer(FORMATS[b.format], ROW_SETS[b.rows], b.width) for b in program.buffers]
    tensors = [CTensor(TENSOR_KINDS[t.kind], t.rows, t.columns, t.offset) for t in program.tensors]
    spec = CProgram(
        _array(COp, ops),
        _array(CBuffer, buffers),
        _array(CTensor, tensors),
        _array(CState, [CState(*state) for state in states]),
        *(len(program.operations), len(buffers), len(tensors), len(states)),
        logits=program.logits,
        vocab_size=program.vocab_size,
        max_seq_len=program.max_seq_len,
        **limits,
    )
    error = ctypes.create_string_buffer(ERROR_BYTES)
    handle = library.nemotrt_open(ctypes.byref(spec), error, ERROR_BYTES)
    if not handle:
        raise ArtefactError(f"the native step refuses the program: {error.value.decode()}.")
    return c_void_p(handle)


def run_step(
    handle: c_void_p,
    sequences: Sequence[tuple[int, int, int, int]],
    tokens: Any,
    logits: Any,
    seconds: Any,
) -> None:
    """Run one step.

    Args:
        handle: an open program.
        sequences: (slot, past, count, rows of logits wanted) of each sequence.
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


def close_program(handle: c_void_p) -> None:
    """Free an open program; its threads end."""
    library = load_library()
    library.nemotrt_close.argtypes = (c_void_p,)
    library.nemotrt_close.restype = None
    library.nemotrt_close(handle)


def _array(kind: Any, items: Sequence[Any]) -> Any:
    """Return a C array, which ctypes keeps alive with the structure that points to it."""
    return (kind * len(items))(*items)


def _view(view: View | None) -> CView:
    """Return a view in C; an absent one is of no buffer."""
    return CView(view.buffer, view.column, view.width) if view else CView(ABSENT, 0, 0)


def _operation(operation: Operation) -> COp:
    """Return an operation in C, its unused places marked."""
    sources = [_view(source) for source in operation.sources]
    tensors = [ABSENT if index is None else index for index in operation.tensors]
    return COp(
        KINDS[operation.kind],
        ROW_SETS[operation.rows],
        _view(operation.target),
        (CView * 4)(*sources, *[_view(None)] * (4 - len(sources))),
        (c_int32 * 4)(*tensors, *[ABSENT] * (4 - len(tensors))),
        (c_int32 * 2)(*operation.states, *[ABSENT] * (2 - len(operation.states))),
        (c_int32 * 4)(*operation.sizes),
        (c_float * 2)(*operation.reals),
    )
