"""What each operator of the description reads, writes and multiplies, in elements, for any load.

`costs` runs the description with an emitter that builds nothing. Number formats, fusing and tensor
parallelism are the planner's; so an architecture is planned by being described.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from nemotrt.engines.model.description import describe
from nemotrt.engines.model.model_config import MambaConfig, ModelConfig, MoeConfig
from nemotrt.engines.model.tensor_names import Block, expected_shapes

SUMMED = (
    *("num_operators", "reads", "writes", "products", "pair_products", "chunk_products"),
    *("chunk_writes", "state", "cache", "weights"),
)


class Kind(StrEnum):
    """What an operator does."""

    EMBED = "embed"
    NORM = "norm"
    LINEAR = "linear"
    ROUTER = "router"
    EXPERTS = "experts"
    ADD = "add"
    ACTIVATION = "activation"
    CONV = "conv"
    SCAN = "scan"
    GATED_NORM = "gated_norm"
    ATTENTION = "attention"


@dataclass(frozen=True, slots=True)
class Cost:
    """One operator, or the sum of several of one kind. A row is a new token.

    Attributes:
        kind: what it does.
        weight: the hub name of its weight; "" where it has none, or several.
        inputs: for each input, the number of the operator that wrote it.
        is_last: a row is a sequence's last new token alone.
        num_operators: how many are summed.
        reads: elements of its inputs for each row.
        writes: elements of its result for each row.
        products: multiply-adds for each row, a token at a time.
        pair_products: multiply-adds for each row and each token that it sees.
        chunk_products: multiply-adds for each row in a prompt, in chunks of the model's size.
        chunk_writes: elements inside it for each row and each token of a chunk.
        state: elements of a sequence, of any length, that a call reads and writes.
        cache: elements that a row adds to its sequence, whose earlier ones are read.
        weights: elements of all experts, of which a row reads `products`; each other operator
            reads its weight whole.
        num_experts: how many they are.
    """

    kind: Kind
    weight: str = ""
    inputs: tuple[int, ...] = ()
    is_last: bool = False
    num_operators: int = 1
    reads: int = 0
    writes: int = 0
    products: int = 0
    pair_products: int = 0
    chunk_products: int = 0
    chunk_writes: int = 0
    state: int = 0
    cache: int = 0
    weights: int = 0
    num_experts: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of both."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in SUMMED}
        return replace(self, weight="", inputs=(), **sums)


@dataclass(frozen=True, slots=True)
class Columns:
    """Adjoining columns of what one operator wrote."""

    width: int
    source: int
    is_last: bool = False


@cache
def costs(config: ModelConfig) -> tuple[Cost, ...]:
    """Return the operators of a model in order."""
    emitter = CostEmitter(config)
    describe(config, emitter)
    return tuple(emitter.costs)


@cache
def totals(config: ModelConfig) -> Mapping[Kind, Cost]:
    """Return the sum over the blocks of each kind of operator that they have."""
    found: dict[Kind, Cost] = {}
    for cost in costs(config):
        if not cost.is_last:
            found[cost.kind] = found[cost.kind] + cost if cost.kind in found else cost
    return found


class CostEmitter:
    """Notes each operator of the description."""

    def __init__(self, config: ModelConfig) -> None:
        """Start with no operator."""
        self.shapes = expected_shapes(config)
        self.costs: list[Cost] = []

    def _note(self, kind: Kind, width: int, *xs: Columns, weight: str = "", **more: int) -> Columns:
        """Append an operator that reads `xs`, and return its result."""
        inputs, is_last = tuple(x.source for x in xs), any(x.is_last for x in xs)
        reads = sum(x.width for x in xs)
        self.costs.append(Cost(kind, weight, inputs, is_last, 1, reads, width, **more))
        return Columns(width, len(self.costs) - 1, is_last)

    def embed(self, weight: str) -> Columns:
        """A row of the table."""
        return self._note(Kind.EMBED, self.shapes[weight][1], weight=weight)

    def rms_norm(self, x: Columns, weight: str, eps: float) -> Columns:
        """As wide as its input."""
        return self._note(Kind.NORM, x.width, x, weight=weight)

    def linear(self, x: Columns, weight: str) -> Columns:
        """A product with each element of the weight."""
        rows, columns = self.shapes[weight]
        return self._note(Kind.LINEAR, rows, x, weight=weight, products=rows * columns)

    def router(self, x: Columns, weight: str) -> Columns:
        """A product with each element of the weight, which no quantizer touches."""
        rows, columns = self.shapes[weight]
        return self._note(Kind.ROUTER, rows, x, weight=weight, products=rows * columns)

    def split(self, x: Columns, sizes: Sequence[int]) -> Sequence[Columns]:
        """Views, which cost nothing."""
        return [replace(x, width=size) for size in sizes]

    def add(self, x: Columns, y: Columns) -> Columns:
        """As wide as each input."""
        return self._note(Kind.ADD, x.width, x, y)

    def relu2(self, x: Columns) -> Columns:
        """As wide as its input."""
        return self._note(Kind.ACTIVATION, x.width, x)

    def swiglu(self, gate: Columns, up: Columns) -> Columns:
        """As wide as each input."""
        return self._note(Kind.ACTIVATION, up.width, gate, up)

    def causal_conv(self, x: Columns, block: Block, mamba: MambaConfig) -> Columns:
        """The window is the state."""
        products, state = x.width * mamba.conv_kernel, mamba.conv_state_elements
        return self._note(Kind.CONV, x.width, x, products=products, state=state)

    def state_space(
        self, x: Columns, b: Columns, c: Columns, dt: Columns, block: Block, mamba: MambaConfig
    ) -> Columns:
        """The recurrence: decay, update and output of the state for each token.

        Source: Mamba-2 paper (arXiv 2405.21060), section 6: in a prompt C B', its product with x,
        chunk states and their outputs, beside a [heads, chunk, chunk] decay.
        """
        state = mamba.ssm_state_elements
        return self._note(
            Kind.SCAN,
            x.width,
            *(x, b, c, dt),
            products=3 * state,
            chunk_products=mamba.chunk_size * (b.width + x.width) + 2 * state,
            chunk_writes=dt.width,
            state=state,
        )

    def gated_norm(
        self, x: Columns, gate: Columns, weight: str, num_groups: int, eps: float
    ) -> Columns:
        """As wide as each input."""
        return self._note(Kind.GATED_NORM, x.width, x, gate, weight=weight)

    def attention(
        self, q: Columns, k: Columns, v: Columns, block: Block, config: ModelConfig
    ) -> Columns:
        """A query channel meets a key's and a value's for each token that it sees."""
        cache, products = k.width + v.width, 2 * q.width
        return self._note(Kind.ATTENTION, q.width, q, k, v, cache=cache, pair_products=products)

    def route(self, scores: Columns, block: Block, moe: MoeConfig) -> Columns:
        """The chosen experts and their weights."""
        return self._note(Kind.ACTIVATION, 2 * moe.num_chosen, scores)

    def experts(self, x: Columns, choice: Columns, block: Block, moe: MoeConfig) -> Columns:
        """A product with each element of the chosen experts' two weights."""
        size = 2 * moe.intermediate_size * x.width
        return self._note(
            Kind.EXPERTS,
            x.width,
            *(x, choice),
            weight=block.name("experts"),
            products=moe.num_chosen * size,
            weights=moe.num_experts * size,
            num_experts=moe.num_experts,
        )

    def last_token(self, x: Columns) -> Columns:
        """What follows has a row for each sequence."""
        return replace(x, is_last=True)

    def logits(self, x: Columns) -> None:
        """The result is where it is."""
