"""LoRA adapters beside the weights: what they take in memory, and what they add to each call.

A linear's change is up x (down x input), of one rank in all linears. A call is counted as if it had
every adapter: each is read whole. Source: docs/guides/lora.md; for GPUs, arXiv 2311.03285 (S-LoRA).
"""

from dataclasses import dataclass

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.sources.stored_weights import linear_layers


@dataclass(frozen=True, slots=True)
class Adapters:
    """`count` adapters of all linears outside of experts, of `rank`, as an engine holds them."""

    count: int
    rank: int
    number: NumberFormat

    def num_weights(self, model: ModelConfig) -> int:
        """Return the elements of one adapter."""
        return self.rank * sum(reads + writes for reads, writes in _shapes(model))

    def num_bytes(self, model: ModelConfig) -> int:
        """Return what all of them take."""
        return self.count * self.num_weights(model) * self.number.num_bytes

    def num_launches(self, model: ModelConfig) -> int:
        """Return the kernels that they add to a call: two for each linear."""
        return 2 * len(_shapes(model))


def _shapes(model: ModelConfig) -> list[tuple[int, int]]:
    """Return the inputs and outputs of each linear that is no expert's."""
    return [
        (cost.reads, cost.writes)
        for layers in linear_layers(model).values()
        for layer in layers
        for cost in layer
    ]
