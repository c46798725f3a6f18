"""The number formats of a plan, in each place that a number has."""

from dataclasses import dataclass

from nemotrt.profiles.planning.sources.number_format import (
    LINEAR_ARITHMETIC,
    LINEAR_WEIGHTS,
    PlanPrecision,
    StoredType,
    other_type,
)
from nemotrt.profiles.planning.sources.stored_weights import StoredWeights


@dataclass(frozen=True, slots=True)
class Formats:
    """The number formats of a plan.

    `stored` is what a quantized checkpoint holds. Without it every linear of the blocks is in
    `precision`.
    """

    precision: PlanPrecision
    kv: StoredType
    ssm: StoredType
    widened: StoredType | None = None  # of 16-bit linears, the head and activations
    quantizes_head: bool = False  # the head is stored as the linears are
    stored: StoredWeights | None = None

    @property
    def activation(self) -> StoredType:
        """The format between the operators."""
        return self.widened or other_type(self.precision)

    @property
    def linear(self) -> StoredType:
        """How the quantized linears lie in memory, or all of them in a 16 or 32 bit precision."""
        stored = LINEAR_WEIGHTS[self.precision]
        return self.widened if self.widened and stored is StoredType.BF16 else stored

    @property
    def arithmetic(self) -> StoredType:
        """What the quantized linears are multiplied in."""
        return LINEAR_ARITHMETIC[self.precision]

    def head_bytes(self, num_weights: int) -> float:
        """Return what a head of so many weights takes in memory."""
        if self.stored and self.stored.head_bytes is not None:
            return self.stored.head_bytes
        head = self.linear if self.quantizes_head else self.activation
        return num_weights * head.num_bits / 8

    @property
    def head_arithmetic(self) -> StoredType:
        """What the head is multiplied in."""
        is_stored = self.stored is not None and self.stored.head_bytes is not None
        return self.arithmetic if is_stored or self.quantizes_head else self.activation
