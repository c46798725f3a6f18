"""The time of a step's operations, by operator, beside the least that each could take."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nemotrt.engines.backends.native.library.machine_limits import MachineLimits
from nemotrt.engines.backends.native.program.program import Operation, OperationKind, Program
from nemotrt.profiles.engine_step.load import Load
from nemotrt.profiles.engine_step.roofline import least_seconds
from nemotrt.profiles.engine_step.work import Work, work_of


@dataclass(frozen=True, slots=True)
class TimedOperator:
    """All operations of one name in a step; `roofline_ms` is the least that they could take."""

    name: str
    num_operations: int
    ms: float
    share: float  # of the step
    roofline_ms: float
    limited_by: str  # "memory", "arithmetic", or "" where nothing but cached activations moves
    gb_per_s: float
    gop_per_s: float

    @property
    def roofline_share(self) -> float:
        """How much of the roofline's speed is reached."""
        return self.roofline_ms / self.ms if self.ms else 0.0


def timed_operators(
    program: Program,
    load: Load,
    num_passes: int,
    op_s: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    step_ms: float,
    limits: MachineLimits,
) -> Iterator[TimedOperator]:
    """Yield the operators in the order of their time."""
    groups: dict[str, list[int]] = {}
    for name, members in _names(program):
        groups.setdefault(name, []).extend(members)
    found = []
    for name, members in groups.items():
        ms = 1e3 * statistics.median(op_s[:, members].sum(axis=1))
        works = [work_of(program, program.operations[i], load, num_passes) for i in members]
        work = sum(works, Work())
        least_s, limited_by = least_seconds(work, limits)
        moved, computed = work.read_bytes + work.update_bytes, work.float_ops + work.int16_ops
        found.append(
            TimedOperator(
                name=name,
                num_operations=len(members),
                ms=ms,
                share=ms / step_ms,
                roofline_ms=1e3 * least_s,
                limited_by=limited_by if moved else "",
                gb_per_s=moved / ms / 1e6 if ms else 0.0,
                gop_per_s=computed / ms / 1e6 if ms else 0.0,
            )
        )
    yield from sorted(found, key=lambda operator: -operator.ms)


def _names(program: Program) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield operators by name, with their operations' numbers.

    Linears that follow each other on one operand run without waiting, so they share one time.
    """
    operations = program.operations
    start = 0
    while start < len(operations):
        end = start + 1
        while end < len(operations) and _follows(operations[end - 1], operations[end]):
            end += 1
        if operations[start].kind is OperationKind.LINEAR:
            names = [_linear_name(program, operation) for operation in operations[start:end]]
            yield ", ".join(names), range(start, end)
        else:
            yield operations[start].kind.value, range(start, end)
        start = end


def _follows(operation: Operation, following: Operation) -> bool:
    """Whether the second runs without waiting for the first."""
    both = operation.kind is following.kind is OperationKind.LINEAR
    return both and operation.sources[0].buffer == following.sources[0].buffer


def _linear_name(program: Program, operation: Operation) -> str:
    """Return the module's own name of a linear, such as in_proj."""
    assert operation.tensors[0] is not None  # the program was checked
    parts = program.tensors[operation.tensors[0]].name.removesuffix(".weight").split(".")
    return parts[-1]
