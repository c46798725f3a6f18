"""What one operation of a native program must move and compute in a step, from its shapes alone."""

from dataclasses import dataclass

from nemotrt.engines.backends.native.program.program import (
    Operation,
    OperationKind,
    Program,
    TensorKind,
    WeightTensor,
)
from nemotrt.profiles.engine_step.load import Load

Kind = OperationKind
# Multiply-adds an element of SSM state and token: decay, input, output. Source: Mamba-2, eq. 16.
SCAN_MADDS = 3


@dataclass(frozen=True, slots=True)
class Work:
    """The least that an operation must do; activations count as cached, so they are not in it."""

    read_bytes: float = 0  # weights, and the KV cache
    update_bytes: float = 0  # state that is read and written, both counted
    float_ops: float = 0
    int16_ops: float = 0

    def __add__(self, other: "Work") -> "Work":
        """Return the work of both."""
        return Work(
            self.read_bytes + other.read_bytes,
            self.update_bytes + other.update_bytes,
            self.float_ops + other.float_ops,
            self.int16_ops + other.int16_ops,
        )


def work_of(program: Program, operation: Operation, load: Load, num_passes: int = 1) -> Work:
    """Return the work of one operation in a step that runs in `num_passes` passes.

    A pass reads every weight once. A sequence's state is read and written once a pass, whatever
    the number of its tokens; its cache is read once a pass too.
    """
    if operation.kind is Kind.LINEAR:
        return _linear(program, operation, load, num_passes)
    if operation.kind is Kind.EXPERTS:
        return _experts(program, operation, load, num_passes)
    if operation.kind is Kind.EMBED:
        table = _tensor(program, operation)
        return Work(read_bytes=load.num_tokens * table.num_bytes / table.rows)
    if operation.kind is Kind.CONV:
        state = load.batch * program.states[operation.states[0]].num_bytes
        madds = load.num_tokens * operation.sizes[0] * operation.target.width
        return Work(update_bytes=2 * num_passes * state, float_ops=2 * madds)
    if operation.kind is Kind.SCAN:
        heads, head_dim, size, _ = operation.sizes
        elements = heads * head_dim * size
        state = load.batch * program.states[operation.states[0]].num_bytes
        return Work(
            update_bytes=2 * num_passes * state,
            float_ops=2 * SCAN_MADDS * load.num_tokens * elements,
        )
    if operation.kind is Kind.ATTENTION:
        return _attention(program, operation, load)
    return Work()


def _linear(program: Program, operation: Operation, load: Load, num_passes: int) -> Work:
    """Return the work of a matrix product."""
    weight = _tensor(program, operation)
    rows = load.num_tokens if operation.rows == "tokens" else load.batch
    ops = 2.0 * rows * weight.rows * weight.columns
    # Two products of int4 with int8 inputs take what one of int8 with int16 takes.
    int16_ops = {TensorKind.PANELS_INT8: ops, TensorKind.PANELS_INT4: ops / 2}.get(weight.kind, 0)
    return Work(
        read_bytes=weight.num_bytes * (num_passes if operation.rows == "tokens" else 1),
        float_ops=0 if int16_ops else ops,
        int16_ops=int16_ops,
    )


def _experts(program: Program, operation: Operation, load: Load, num_passes: int) -> Work:
    """Return the work of one linear of the chosen experts, if each token chooses evenly."""
    weight = _tensor(program, operation)
    num_experts, num_chosen = operation.sizes[:2]
    unread = (1 - num_chosen / num_experts) ** (load.num_tokens / num_passes)
    ops = 2.0 * load.num_tokens * num_chosen * weight.rows / num_experts * weight.columns
    is_int8 = weight.kind is TensorKind.PANELS_INT8
    return Work(
        read_bytes=weight.num_bytes * (1 - unread) * num_passes,
        float_ops=0 if is_int8 else ops,
        int16_ops=ops if is_int8 else 0,
    )


def _attention(program: Program, operation: Operation, load: Load) -> Work:
    """Return the work of attention: each new token against all that its sequence then holds."""
    heads, _, depth = operation.sizes
    seen = load.tokens * load.held + load.tokens * (load.tokens + 1) / 2
    caches = [program.states[number] for number in operation.states]  # [KV heads, tokens, depth]
    token_bytes = sum(cache.num_bytes / cache.shape[1] for cache in caches)
    return Work(
        read_bytes=load.batch * (load.held + load.tokens) * token_bytes,
        float_ops=4 * load.batch * seen * heads * depth,
    )


def _tensor(program: Program, operation: Operation) -> WeightTensor:
    """Return the weight that an operation reads."""
    assert operation.tensors[0] is not None  # the program was checked
    return program.tensors[operation.tensors[0]]
