"""The number formats of a plan, in each place that a number has."""

from dataclasses import dataclass

from nemotrt.engines.model.numerics import GROUP_SIZES, NumberFormat, Precision
from nemotrt.profiles.planning.sources.stored_weights import StoredWeights


@dataclass(frozen=True, slots=True)
class Formats:
    """The number formats of a plan.

    `stored` is what a quantized checkpoint holds. Without it every linear of the blocks is in
    `precision`.
    """

    precision: Precision
    kv: NumberFormat
    ssm: NumberFormat
    widened: NumberFormat | None = None  # of 16-bit linears, the head and activations
    quantizes_head: bool = False  # the head is stored as the linears are
    stored: StoredWeights | None = None

    @property
    def activation(self) -> NumberFormat:
        """The format between the operators."""
        return self.widened or self.precision.floats

    @property
    def linear(self) -> NumberFormat:
        """How the quantized linears lie in memory, or all of them in a 16 or 32 bit precision."""
        stored = self.precision.weights.format
        return self.widened if self.widened and stored is NumberFormat.BF16 else stored

    @property
    def arithmetic(self) -> NumberFormat:
        """What the quantized linears are multiplied in."""
        return self.precision.arithmetic

    def linear_bytes(self, num_weights: int) -> float:
        """Return what so many weights of linears take, with the scales of groups."""
        scales = self.precision.weights.scale_format.num_bytes / GROUP_SIZES[0]
        is_grouped = self.precision.weights.is_grouped
        return num_weights * (self.linear.num_bits / 8 + (scales if is_grouped else 0))

    def head_bytes(self, num_weights: int) -> float:
        """Return what a head of so many weights takes in memory."""
        if self.stored and self.stored.head_bytes is not None:
            return self.stored.head_bytes
        linear = NumberFormat.INT8 if self.precision.weights.is_grouped else self.linear
        head = linear if self.quantizes_head else self.activation
        return num_weights * head.num_bits / 8

    @property
    def head_arithmetic(self) -> NumberFormat:
        """What the head is multiplied in."""
        is_stored = self.stored is not None and self.stored.head_bytes is not None
        return self.arithmetic if is_stored or self.quantizes_head else self.activation
