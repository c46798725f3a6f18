"""The library's structures, and a program in them; the same as in step/program.h."""

import functools
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_void_p
from typing import Any

from nemotrt.engines.backends.native.library.library import load_library
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
        array(COp, [_operation(operation) for operation in program.operations]),
        array(CBuffer, buffers),
        array(CTensor, tensors),
        array(CState, states),
        *(len(program.operations), len(buffers), len(tensors), len(states)),
        logits=program.logits,
        vocab_size=program.vocab_size,
        max_seq_len=program.max_seq_len,
        loras=array(CLora, [lora for own in loras for lora in own]),
        num_adapters=len(loras[0]) if loras else 0,
        **limits,
    )


def array(kind: Any, items: Sequence[Any]) -> Any:
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
