"""Builds a program from lazy values: where each lies is decided when it is used.

A row operation becomes an operation once it is known which operand the next linear reads, and a
linear once it is known whether its result is added to the residual stream. Both read the buffers as
they are then, so a value must be used before what it is made of changes.
"""

from dataclasses import dataclass

from nemotrt.engines.backends.native.program.options import StateFormat
from nemotrt.engines.backends.native.program.packed_weights import PackedWeights
from nemotrt.engines.backends.native.program.program import (
    BufferFormat,
    BufferSpec,
    Operation,
    OperationKind,
    Program,
    RowSet,
    StateSpec,
    View,
    round_up,
)

RESIDUAL, SCRATCH, LAST, LOGITS, OPERAND_FLOAT, OPERAND_INT16, OPERAND_INT8 = range(7)
OPERANDS = {
    BufferFormat.OPERAND_FLOAT: OPERAND_FLOAT,
    BufferFormat.OPERAND_INT16: OPERAND_INT16,
    BufferFormat.OPERAND_INT8: OPERAND_INT8,
}


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Columns that exist (`view`), or an operation whose target is still to be chosen."""

    width: int
    rows: RowSet = "tokens"
    view: View | None = None
    pending: Operation | None = None  # a row operation
    linear_input: "Value | None" = None  # of a linear, whose weight is `weight`
    weight: str = ""
    is_exact: bool = False  # the weight keeps its floats, whatever the engine's precision
    terms: "tuple[Value, ...]" = ()  # of a sum, which are added to the residual stream one by one


class ProgramBuilder:
    """Operations, states and buffers of one program."""

    def __init__(self, weights: PackedWeights) -> None:
        """Start an empty program over `weights`."""
        self.weights = weights
        self._operations: list[Operation] = []
        self._states: list[StateSpec] = []
        self._scratch_used = 0
        self._widths = [1] * 7  # by buffer
        self._held: dict[BufferFormat, Value] = {}  # what each operand holds

    def program(self, vocab_size: int, max_seq_len: int) -> Program:
        """Return the finished program."""
        rows_of = {LAST: "sequences", LOGITS: "sequences"}
        format_of = {buffer: kind for kind, buffer in OPERANDS.items()}
        buffers = [
            BufferSpec.model_validate(
                {
                    "format": format_of.get(index, BufferFormat.ROWS),
                    "rows": rows_of.get(index, "tokens"),
                    "width": width,
                }
            )
            for index, width in enumerate(self._widths)
        ]
        return Program(
            vocab_size=vocab_size,
            max_seq_len=max_seq_len,
            logits=LOGITS,
            buffers=tuple(buffers),
            tensors=self.weights.specs,
            states=tuple(self._states),
            operations=tuple(self._operations),
        )

    def state(self, name: str, *shape: int, kind: StateFormat = StateFormat.FLOAT32) -> int:
        """Declare a state and return its index."""
        self._states.append(StateSpec(name=name, shape=shape, format=kind))
        return len(self._states) - 1

    def whole(self, buffer: int, width: int) -> View:
        """Return the first `width` columns of a buffer."""
        self._widths[buffer] = max(self._widths[buffer], width)
        return View(buffer=buffer, column=0, width=width)

    def columns(self, width: int) -> View:
        """Take new columns of the scratch buffer, whole panels of them."""
        view = View(buffer=SCRATCH, column=self._scratch_used, width=width)
        self._scratch_used += round_up(width)
        self._widths[SCRATCH] = max(self._widths[SCRATCH], self._scratch_used)
        return view

    def end_block(self) -> None:
        """Give the scratch columns to the next block."""
        self._scratch_used = 0

    def view(self, x: Value) -> View:
        """Return where a value lies; what has no target yet goes to scratch columns."""
        if x.pending:
            return self._emit_pending(x.pending, self.columns(x.width))
        return x.view or self.linear_into(x, self.columns(x.width), adds=False)

    def add_into(self, x: Value, target: View) -> None:
        """Add a linear, a mix of experts, or a sum of them to what the target holds."""
        if x.pending:
            self._emit_pending(
                x.pending.model_copy(update={"sizes": (x.pending.sizes[0], 1)}), target
            )
        elif x.linear_input:
            self.linear_into(x, target, adds=True)
        for term in x.terms:
            self.add_into(term, target)

    def _emit_pending(self, operation: Operation, target: View) -> View:
        """Append a row operation with its target."""
        self._operations.append(operation.model_copy(update={"target": target}))
        return target

    def emit(self, kind: OperationKind, target: View, *sources: Value, **fields: object) -> Value:
        """Append an operation on tokens and return its result."""
        views = tuple(self.view(source) for source in sources)
        self._append(kind, "tokens", target, views, fields)
        return Value(target.width, view=target)

    def row_operation(
        self, kind: OperationKind, *sources: Value, width: int | None = None, **fields: object
    ) -> Value:
        """Return a value that goes where it is read; it is as wide as the first source."""
        views = tuple(self.view(source) for source in sources)
        width, rows = width or sources[0].width, sources[0].rows
        target = self.whole(OPERAND_FLOAT, 1).model_copy(update={"width": width})
        pending = Operation.model_validate(
            {"kind": kind, "rows": rows, "target": target, "sources": views, **fields}
        )
        return Value(width, rows, pending=pending)

    def linear_into(self, x: Value, target: View, *, adds: bool) -> View:
        """Append a linear with its operand; `adds` keeps what the target holds."""
        assert x.linear_input is not None
        weight, scale, kind = self.weights.linear(x.weight, is_exact=x.is_exact)
        fields: dict[str, object] = {"tensors": (weight, scale), "sizes": (int(adds),)}
        source = self._operand(x.linear_input, kind)
        self._append(OperationKind.LINEAR, x.rows, target, (source,), fields)
        return target

    def _operand(self, x: Value, kind: BufferFormat) -> View:
        """Put a value where linears read it, unless it is there already."""
        view = self.whole(OPERANDS[kind], x.width)
        if self._held.get(kind) is not x:
            pending = x.pending or self.row_operation(OperationKind.PACK, x).pending
            assert pending is not None
            self._emit_pending(pending, view)
            self._held[kind] = x
        return view

    def _append(
        self,
        kind: OperationKind,
        rows: RowSet,
        target: View,
        sources: tuple[View, ...],
        fields: dict[str, object],
    ) -> None:
        """Append an operation."""
        self._operations.append(
            Operation.model_validate(
                {"kind": kind, "rows": rows, "target": target, "sources": sources, **fields}
            )
        )
