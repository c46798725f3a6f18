"""The states of a plan's graph: what each is called, and what one sequence's row of it is."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from nemotrt.engines.backends.tensorrt.run.plan_runner import PlanRunner
from nemotrt.errors import ArtefactError

TOKEN_AXIS = 1  # of a cache's row


@dataclass(frozen=True, slots=True)
class StateTensor:
    """One state of the graph: its kind, the number of its layer, and what one row is.

    A row of a cache is [heads, tokens, ...].
    """

    kind: str
    layer: int
    row: tuple[int, ...]
    item_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.row) * self.item_bytes

    @property
    def name(self) -> str:
        """The graph's input."""
        return f"{self.kind}_{self.layer}"

    @property
    def out_name(self) -> str:
        """The graph's output."""
        return f"{self.kind}_out_{self.layer}"

    @property
    def is_cache(self) -> bool:
        """Whether the output has the input's memory in every plan."""
        return self.kind.endswith("_cache")

    # Of a cache's row

    @property
    def head_bytes(self) -> int:
        """Bytes from one head to the next."""
        return self.row_bytes // self.row[0]

    def token_bytes(self, num_tokens: int = 1) -> int:
        """Return the bytes of tokens, of all heads."""
        return self.row_bytes // self.row[TOKEN_AXIS] * num_tokens

    def token_offset(self, token: int) -> int:
        """Return how far into a row a token begins, of the first head."""
        return self.token_bytes(token) // self.row[0]

    def of_tokens(self, num_tokens: int) -> tuple[int, ...]:
        """Return the shape of tokens in a row."""
        return (*self.row[:TOKEN_AXIS], num_tokens, *self.row[TOKEN_AXIS + 1 :])


def state_tensors(runner: PlanRunner, others: Collection[str]) -> list[StateTensor]:
    """Return a plan's states: every input that is not among the `others`, and its output.

    Raises:
        ArtefactError: an input has no output of its name, or an output no input.
    """
    outputs = set(runner.names(inputs=False)) - {"logits"}
    tensors = []
    for name in runner.names(inputs=True):
        if name in others:
            continue
        kind, _, layer = name.rpartition("_")
        number = int(layer) if layer.isdigit() else -1
        tensor = StateTensor(kind, number, runner.shape(name)[1:], runner.item_bytes(name))
        if tensor.out_name not in outputs:
            raise ArtefactError(f"the plan's input {name} is neither a weight nor a state.")
        outputs.remove(tensor.out_name)
        tensors.append(tensor)
    if outputs:
        raise ArtefactError(f"the plan's outputs {', '.join(sorted(outputs))} are unknown.")
    return tensors


def num_layers(tensors: list[StateTensor]) -> dict[str, int]:
    """Return how many layers each kind has; each from 0 on, and of one size."""
    found: dict[str, int] = {}
    for kind in dict.fromkeys(tensor.kind for tensor in tensors):
        own = [tensor for tensor in tensors if tensor.kind == kind]
        is_whole = sorted(tensor.layer for tensor in own) == list(range(len(own)))
        if not is_whole or len({tensor.row_bytes for tensor in own}) > 1:
            raise ArtefactError(f"the plan's {kind} states are not one of each layer, all alike.")
        found[kind] = len(own)
    return found
