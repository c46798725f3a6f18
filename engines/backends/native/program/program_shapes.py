"""The widths, tensors and states that fit each kind of operation; validate.cpp asks the same."""

from collections.abc import Callable
from math import prod

from nemotrt.engines.backends.native.program.options import StateFormat
from nemotrt.engines.backends.native.program.program import (
    BufferFormat,
    Operation,
    OperationKind,
    Program,
    TensorKind,
    View,
)

Kind = OperationKind
MAX_CONV_KERNEL = 16
PER_TOKEN = (Kind.EMBED, Kind.CONV, Kind.SCAN, Kind.ATTENTION, Kind.LAST_TOKEN)


class MisfitError(Exception):
    """What does not fit; it becomes the fault's text."""


def misfit_of(program: Program, operation: Operation) -> str | None:
    """Return what does not fit together in an operation whose indices are in range."""
    try:
        if operation.kind in PER_TOKEN:
            _expect(operation.rows == "tokens", "it works on tokens")
        _sources(program, operation)
        if check := CHECKS.get(operation.kind):
            check(program, operation)
    except MisfitError as misfit:
        return str(misfit)
    return None


def _expect(is_met: bool, text: str) -> None:
    if not is_met:
        raise MisfitError(text)


def _sources(program: Program, operation: Operation) -> None:
    """Check that sources are rows of the operation's own set and apart from its target."""
    if operation.kind is Kind.LINEAR:
        return
    rows = "tokens" if operation.kind is Kind.LAST_TOKEN else operation.rows
    for source in operation.sources:
        _rows(program, source, rows)
        is_in_place = operation.kind is Kind.CONV and source.column == operation.target.column
        _expect(
            is_in_place or not _overlaps(source, operation.target), "its target overlaps a source"
        )
    target = program.buffers[operation.target.buffer]
    if target.format is BufferFormat.ROWS:
        last = operation.kind is Kind.LAST_TOKEN
        _rows(program, operation.target, "sequences" if last else operation.rows)
        _expect(operation.target.buffer != program.logits, "only a linear writes the logits")
    else:
        _expect(operation.target.column == 0, "an operand starts at column 0")
        _width(operation.target, operation.sources[0].width)


def _rows(program: Program, view: View, rows: str) -> None:
    buffer = program.buffers[view.buffer]
    is_fit = buffer.format is BufferFormat.ROWS and buffer.rows == rows
    _expect(is_fit, f"buffer {view.buffer} has other rows")


def _overlaps(a: View, b: View) -> bool:
    return a.buffer == b.buffer and a.column < b.column + b.width and b.column < a.column + a.width


def _width(view: View, expected: int) -> None:
    _expect(view.width == expected, f"width {view.width}, expected {expected}")


def _values(program: Program, operation: Operation, place: int, rows: int, columns: int) -> None:
    index = operation.tensors[place]
    _expect(index is not None, f"tensor {place} is missing")
    assert index is not None
    tensor = program.tensors[index]
    is_fit = tensor.kind is TensorKind.VALUES
    is_fit &= tensor.rows >= rows and tensor.columns == columns
    _expect(
        is_fit,
        f"{tensor.name} is {tensor.kind} [{tensor.rows}, {tensor.columns}], "
        f"expected values [{rows}, {columns}]",
    )


def _state(program: Program, operation: Operation, place: int, elements: int) -> None:
    state = program.states[operation.states[place]]
    _expect(
        prod(state.shape) == elements, f"{state.name} is {state.shape}, not {elements} elements"
    )
    is_scan = operation.kind is Kind.SCAN
    _expect(is_scan or state.format is StateFormat.FLOAT32, f"{state.name} must be float32")


def _embed(program: Program, operation: Operation) -> None:
    index = operation.tensors[0]
    _expect(index is not None, "it has no table")
    assert index is not None
    table = program.tensors[index]
    is_fit = table.kind in (TensorKind.VALUES, TensorKind.TABLE_BF16)
    is_fit &= (table.rows, table.columns) == (program.vocab_size, operation.target.width)
    _expect(is_fit, f"{table.name} is no table of {program.vocab_size} tokens")


def _norm(program: Program, operation: Operation) -> None:
    _values(program, operation, 0, 1, operation.sources[0].width)


def _pair(program: Program, operation: Operation) -> None:
    _width(operation.sources[1], operation.sources[0].width)


def _gated_norm(program: Program, operation: Operation) -> None:
    width, groups = operation.sources[0].width, operation.sizes[0]
    _pair(program, operation)
    _expect(groups > 0 and width % groups == 0, f"{groups} groups of {width} columns")
    _values(program, operation, 0, 1, width)


def _conv(program: Program, operation: Operation) -> None:
    kernel, width = operation.sizes[0], operation.target.width
    _width(operation.sources[0], width)
    _expect(1 < kernel <= MAX_CONV_KERNEL, f"a kernel of {kernel}")
    _values(program, operation, 0, kernel, width)
    _values(program, operation, 1, 1, width)
    _state(program, operation, 0, (kernel - 1) * width)


def _scan(program: Program, operation: Operation) -> None:
    heads, head_dim, size, groups = operation.sizes
    _expect(0 not in operation.sizes and heads % groups == 0, f"{heads} heads in {groups} groups")
    _width(operation.target, heads * head_dim)
    widths = (heads * head_dim, groups * size, groups * size, heads)
    for source, width in zip(operation.sources, widths, strict=True):
        _width(source, width)
    for place in range(3):
        _values(program, operation, place, 1, heads)
    _state(program, operation, 0, heads * head_dim * size)


def _attention(program: Program, operation: Operation) -> None:
    heads, kv_heads, depth = operation.sizes
    _expect(0 not in operation.sizes and heads % kv_heads == 0, f"{heads} heads share {kv_heads}")
    for view in (operation.target, operation.sources[0]):
        _width(view, heads * depth)
    for place in range(2):
        _width(operation.sources[1 + place], kv_heads * depth)
        _state(program, operation, place, kv_heads * depth * program.max_seq_len)
        if operation.tensors[place] is not None:
            _values(program, operation, place, 1, depth)
    tables = operation.tensors[2:]
    if tables == (None, None):
        return
    _expect(None not in tables and depth % 2 == 0, "half of a rotary table, or an odd head")
    for place in (2, 3):
        _values(program, operation, place, program.max_seq_len, depth // 2)


def _last_token(program: Program, operation: Operation) -> None:
    _width(operation.sources[0], operation.target.width)


CHECKS: dict[OperationKind, Callable[[Program, Operation], None]] = {
    Kind.EMBED: _embed,
    Kind.NORM: _norm,
    Kind.SWIGLU: _pair,
    Kind.GATED_NORM: _gated_norm,
    Kind.CONV: _conv,
    Kind.SCAN: _scan,
    Kind.ATTENTION: _attention,
    Kind.LAST_TOKEN: _last_token,
}
