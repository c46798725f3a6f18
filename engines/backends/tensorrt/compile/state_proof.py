"""Whether one spare state may rotate in a plan's decode steps: proven from its kernels, or not.

A step may write layer i's state over what layer i-1 has read if every kernel that reads the one
state is an ancestor of every kernel that writes the other: it is done by then on any number of
streams, since TensorRT runs a kernel behind those whose results it reads. Nothing else orders
kernels: not the report's list, which may change, and not its bookkeeping.

It is assumed that an output's memory is written by the kernels that the report names for it. A
compiler may only compute a part of it there before, in place: so what such a kernel reads must be
smaller than the state, but for states.
"""

from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter

from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile.layer_check import row_size
from nemotrt.engines.backends.tensorrt.compile.layer_report import Layer, LayerReport

STATE_LAYOUT, LAYOUT_REASON = "state_layout", "state_layout_reason"  # in a manifest's options
DECODE = 0
KINDS = ("conv", "ssm")


def state_layout(
    report: LayerReport, num_layers: int, inputs: Collection[str]
) -> tuple[StateLayout, str]:
    """Return how a plan's states may lie, and why they need two sides; "" where they don't.

    Args:
        report: of the plan.
        num_layers: layers of the model that have states.
        inputs: the graph's inputs but for its states.
    """
    fault = next(_faults(report.kernels(DECODE), num_layers, inputs), "")
    return (StateLayout.TWO_SIDES, fault) if fault else (StateLayout.ROTATING, "")


def _faults(kernels: list[Layer], num_layers: int, inputs: Collection[str]) -> Iterator[str]:
    """Yield what keeps the relation from being proven."""
    if not kernels:
        yield "the compiler's report has no kernels"
        return
    readers, writers = _by_tensor(kernels, is_read=True), _by_tensor(kernels, is_read=False)
    states = [f"{kind}_{layer}" for kind in KINDS for layer in range(num_layers)]
    known = {*inputs, *states}
    for name in readers:
        if name not in writers and name not in known:
            yield f"a kernel reads {name}, which no kernel writes: it may be a state's other name"
    for name in states:
        out_name = name.replace("_", "_out_")
        if name in writers or name not in readers or out_name not in writers:
            yield f"{name} is written, or no kernel reads it, or none writes {out_name}"
    found = _ancestors(kernels, writers)
    if found is None:
        yield "the kernels depend on each other in a circle"
        return
    for kind in KINDS:
        for layer in range(1, num_layers):
            reading = readers[f"{kind}_{layer - 1}"]
            for writer in writers[f"{kind}_out_{layer}"]:
                if not reading <= found[writer]:
                    yield (
                        f"a kernel that reads {kind}_{layer - 1} may still run when "
                        f"{kind}_out_{layer} is written"
                    )
    for name in states:
        out_name = name.replace("_", "_out_")
        for writer in writers[out_name]:
            yield from _in_place(kernels[writer], out_name, states)


def _in_place(kernel: Layer, out_name: str, states: Collection[str]) -> Iterator[str]:
    """Yield what a kernel reads that may have had the memory of a state which it writes."""
    size = next(row_size(tensor) for tensor in kernel.outputs if tensor.name == out_name)
    for tensor in kernel.inputs:
        if tensor.name not in states and row_size(tensor) >= size:
            yield f"{tensor.name} is as large as {out_name}, in whose memory it may have been"


def _by_tensor(kernels: list[Layer], *, is_read: bool) -> dict[str, set[int]]:
    """Return tensor -> the numbers of the kernels that read it, or that write it."""
    found: dict[str, set[int]] = {}
    for number, kernel in enumerate(kernels):
        for tensor in kernel.inputs if is_read else kernel.outputs:
            found.setdefault(tensor.name, set()).add(number)
    return found


def _ancestors(kernels: list[Layer], writers: dict[str, set[int]]) -> dict[int, set[int]] | None:
    """Return each kernel's ancestors; None where there is a circle.

    A tensor that several kernels write says nothing of which of them a reader waits for.
    """
    parents = {
        number: {
            writer
            for tensor in kernel.inputs
            if len(writers.get(tensor.name, ())) == 1
            for writer in writers[tensor.name]
        }
        - {number}
        for number, kernel in enumerate(kernels)
    }
    found: dict[int, set[int]] = {}
    try:
        for number in TopologicalSorter(parents).static_order():
            found[number] = parents[number].union(*(found[one] for one in parents[number]))
    except CycleError:
        return None
    return found
