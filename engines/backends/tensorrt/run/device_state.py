"""The state of all sequences in device memory, one row a sequence.

A KV cache is written in place, which TensorRT's KVCacheUpdate demands; so are all states where our
plugins update them. TensorRT's own layers read and write convolution windows and SSM states by
different kernels in an order that it does not promise, so each has two sides: a step reads one and
writes the other. No copy is made, and a step that is repeated gives the same result.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, DeviceBuffer
from nemotrt.engines.backends.tensorrt.run.plan_runner import PlanRunner
from nemotrt.errors import ArtefactError

SIDES = 2


@dataclass(frozen=True, slots=True)
class StateTensor:
    """One state of the graph: the input's name, the output's, and the bytes of one row."""

    name: str
    out_name: str
    row_bytes: int
    is_in_place: bool  # the output has the input's memory


def state_tensors(
    runner: PlanRunner, others: Collection[str], *, all_in_place: bool
) -> list[StateTensor]:
    """Return a plan's states: every input that is not among the `others`, and its output.

    Raises:
        ArtefactError: an input has no output of its name, or an output no input.
    """
    outputs = set(runner.names(inputs=False)) - {"logits"}
    tensors = []
    for name in runner.names(inputs=True):
        if name in others:
            continue
        kind, _, index = name.rpartition("_")
        out_name = f"{kind}_out_{index}"
        if out_name not in outputs:
            raise ArtefactError(f"the plan's input {name} is neither a weight nor a state.")
        outputs.remove(out_name)
        row_bytes = int(np.prod(runner.shape(name)[1:])) * runner.item_bytes(name)
        is_in_place = all_in_place or kind.endswith("_cache")
        tensors.append(StateTensor(name, out_name, row_bytes, is_in_place))
    if outputs:
        raise ArtefactError(f"the plan's outputs {', '.join(sorted(outputs))} are unknown.")
    return tensors


class DeviceStates:
    """Buffers for `num_rows` sequences, and which side of each row is current."""

    def __init__(self, cuda: Cuda, tensors: list[StateTensor], num_rows: int) -> None:
        """Allocate, and enqueue zeros."""
        self.tensors = tensors
        self.side = [0] * num_rows
        self._cuda = cuda
        self._num_rows = num_rows
        self._buffers: dict[str, DeviceBuffer] = {}
        for tensor in tensors:
            sides = 1 if tensor.is_in_place else SIDES
            self._buffers[tensor.name] = cuda.allocate(sides * num_rows * tensor.row_bytes)
            cuda.zero(self._buffers[tensor.name].address, self._buffers[tensor.name].num_bytes)
        self._spare = cuda.allocate(max((t.row_bytes for t in tensors), default=0))

    def address(self, tensor: StateTensor, row: int, side: int) -> int:
        """Return where a row of a state lies; what is updated in place has one side."""
        place = row if tensor.is_in_place else side * self._num_rows + row
        return self._buffers[tensor.name].address + place * tensor.row_bytes

    def bindings(self, row: int, side: int) -> dict[str, int]:
        """Return graph tensor -> address, for rows from `row` on that are all on `side`."""
        found = {}
        for tensor in self.tensors:
            found[tensor.name] = self.address(tensor, row, side)
            found[tensor.out_name] = self.address(tensor, row, 1 - side)
        return found

    def align(self, rows: range) -> int:
        """Bring the rows to one side, the one that most are on, and return it."""
        ones = sum(self.side[row] for row in rows)
        side = int(2 * ones > len(rows))
        for row in rows:
            if self.side[row] != side:
                for tensor in self.tensors:
                    if not tensor.is_in_place:
                        source, target = (self.address(tensor, row, s) for s in (1 - side, side))
                        self._cuda.copy(target, source, tensor.row_bytes)
                self.side[row] = side
        return side

    def flip(self, rows: range) -> None:
        """Note that a step has written the other side of these rows, if there is one."""
        if all(tensor.is_in_place for tensor in self.tensors):
            return
        for row in rows:
            self.side[row] = 1 - self.side[row]

    def clear(self, row: int, tokens: int) -> None:
        """Enqueue zeros for a whole row, whatever it held."""
        for tensor in self.tensors:
            self._cuda.zero(self.address(tensor, row, self.side[row]), tensor.row_bytes)

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two whole rows, whatever they hold."""
        for tensor in self.tensors:
            a, b = (self.address(tensor, row, self.side[row]) for row in (first, second))
            for target, source in ((self._spare.address, a), (a, b), (b, self._spare.address)):
                self._cuda.copy(target, source, tensor.row_bytes)
