"""What each operation of a program must be given; the library checks the same again in C++."""

import math
from dataclasses import dataclass

from nemotrt.engines.backends.native.program.program import (
    ALIGNMENT,
    BufferFormat,
    Operation,
    OperationKind,
    Program,
    RowSet,
    TensorKind,
    View,
    num_blocks,
    round_up,
)
from nemotrt.engines.backends.native.program.program_shapes import misfit_of

Kind = OperationKind


@dataclass(frozen=True, slots=True)
class Signature:
    """How many of each an operation takes."""

    sources: int
    tensors: int = 0
    states: int = 0
    sizes: int = 0
    reals: int = 0
    has_operand: bool = False  # whether its target is an operand


SIGNATURES = {
    Kind.EMBED: Signature(0, tensors=1),  # table
    Kind.NORM: Signature(1, tensors=1, reals=1, has_operand=True),  # weight; eps
    Kind.LINEAR: Signature(1, tensors=2, sizes=1),  # weight, scale; whether it adds
    Kind.RELU2: Signature(1, has_operand=True),
    Kind.SWIGLU: Signature(2, has_operand=True),  # gate, up
    Kind.CONV: Signature(1, tensors=2, states=1, sizes=1),  # weight, bias; window; kernel
    # x, B, C, dt; dt_bias, A, D; state; heads, head_dim, state size, groups; least, most time step
    Kind.SCAN: Signature(4, tensors=3, states=1, sizes=4, reals=2),
    Kind.GATED_NORM: Signature(2, tensors=1, sizes=1, reals=1, has_operand=True),  # x, gate
    # q, k, v; q norm, k norm, cosine, sine; k and v cache; heads, kv heads, head_dim; eps
    Kind.ATTENTION: Signature(3, tensors=4, states=2, sizes=3, reals=1),
    Kind.PACK: Signature(1, has_operand=True),
    Kind.LAST_TOKEN: Signature(1),
}


def fault_of(program: Program, weights_bytes: int) -> str | None:
    """Return what is wrong with a program over a weights file of this size, None if nothing is."""
    for index, tensor in enumerate(program.tensors):
        if tensor.offset % ALIGNMENT or tensor.offset + tensor.num_bytes > weights_bytes:
            return f"tensor {index} ({tensor.name}) lies outside {weights_bytes} bytes of weights"
    if program.logits >= len(program.buffers):
        return f"there is no buffer {program.logits} for the logits"
    logits = program.buffers[program.logits]
    if (logits.format, logits.rows, logits.width) != (
        BufferFormat.ROWS,
        "sequences",
        program.vocab_size,
    ):
        return f"buffer {program.logits} can't hold the logits"
    if not program.operations:
        return "there are no operations"
    held: dict[int, tuple[int, RowSet]] = {}  # what each operand holds: columns, rows
    for index, operation in enumerate(program.operations):
        fault = _operation_fault(program, operation) or misfit_of(program, operation)
        if not fault and operation.kind is Kind.LINEAR:
            before = program.operations[index - 1] if index else None
            fault = _order_fault(program, operation, before, held)
        if fault:
            return f"operation {index} ({operation.kind}): {fault}"
        if SIGNATURES[operation.kind].has_operand:
            held[operation.target.buffer] = operation.target.width, operation.rows
    last = program.operations[-1]
    if last.kind is not Kind.LINEAR or last.target.buffer != program.logits:
        return "the last operation must be the linear that writes the logits"
    return None


def _order_fault(
    program: Program,
    operation: Operation,
    before: Operation | None,
    held: dict[int, tuple[int, RowSet]],
) -> str | None:
    """Return what is wrong with a linear after the operations before it."""
    source, target = operation.sources[0], operation.target
    if held.get(source.buffer) != (source.width, operation.rows) or source.column:
        return f"operand {source.buffer} does not hold these rows"
    buffer = program.buffers[target.buffer]
    if buffer.rows != operation.rows:
        return f"buffer {target.buffer} has other rows"
    if target.buffer == program.logits and (operation.sizes[0] or target.column):
        return "logits can't be added to"
    if before is None or before.kind is not Kind.LINEAR or before.target.buffer != target.buffer:
        return None
    start, end = before.target.column, before.target.column + round_up(before.target.width)
    if target.column < end and start < target.column + round_up(target.width):
        return "it overlaps the linear before it"  # the two run without waiting
    return None


def _operation_fault(program: Program, operation: Operation) -> str | None:
    """Return what is wrong with one operation by itself."""
    signature = SIGNATURES[operation.kind]
    for what in ("sources", "tensors", "states", "sizes", "reals"):
        found, expected = len(getattr(operation, what)), getattr(signature, what)
        if found != expected:
            return f"it has {found} {what}, expected {expected}"
    for view in (operation.target, *operation.sources):
        if fault := _view_fault(program, view):
            return fault
    target = program.buffers[operation.target.buffer]
    if (target.format is not BufferFormat.ROWS) != signature.has_operand:
        return f"buffer {operation.target.buffer} is {target.format}"
    if any(index is not None and index >= len(program.tensors) for index in operation.tensors):
        return f"it names a tensor past the last, {len(program.tensors) - 1}"
    if any(index >= len(program.states) for index in operation.states):
        return f"it names a state past the last, {len(program.states) - 1}"
    if not all(map(math.isfinite, operation.reals)):
        return "it has a number that is not finite"
    if operation.kind is Kind.LINEAR:
        return _linear_fault(program, operation)
    return None


def _view_fault(program: Program, view: View) -> str | None:
    """Return what is wrong with columns of a buffer."""
    if view.buffer >= len(program.buffers):
        return f"there is no buffer {view.buffer}"
    width = program.buffers[view.buffer].width
    if view.column + view.width > width:
        return (
            f"columns {view.column} to {view.column + view.width} of buffer {view.buffer} ({width})"
        )
    return None


def _linear_fault(program: Program, operation: Operation) -> str | None:
    """Return what is wrong with a linear's weight, operand or target."""
    weight_index, scale_index = operation.tensors
    if weight_index is None:
        return "it has no weight"
    weight = program.tensors[weight_index]
    source, target = operation.sources[0], operation.target
    is_int8 = weight.kind is TensorKind.PANELS_INT8
    has_scale = weight.kind in (TensorKind.PANELS_INT8, TensorKind.PANELS_FLOAT8)
    wanted = BufferFormat.OPERAND_INT16 if is_int8 else BufferFormat.OPERAND_FLOAT
    if program.buffers[source.buffer].format is not wanted:
        return f"{weight.kind} needs an {wanted}"
    if (weight.rows, weight.columns) != (target.width, source.width):
        return f"{weight.name} is [{weight.rows}, {weight.columns}]"
    if has_scale != (scale_index is not None):
        return "int8 and float8 weights need a scale, and only those"
    if scale_index is not None:
        scale = program.tensors[scale_index]
        if scale.kind is not TensorKind.VALUES or scale.columns != round_up(weight.rows):
            return f"{scale.name} is no scale of {weight.rows} rows"
        if scale.rows != 1 and (scale.rows != num_blocks(weight.columns) or not is_int8):
            return f"{scale.name} has {scale.rows} blocks"
    if target.column + round_up(target.width) > round_up(program.buffers[target.buffer].width):
        return "its last panel does not fit the target"
    return None
