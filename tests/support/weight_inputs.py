"""A manifest's weight inputs, as a build writes them, without the compiler."""

import dataclasses

from nemotrt.engines.artefact.manifest import WeightInput
from nemotrt.engines.backends.tensorrt.graph.emitter import BoundWeight
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.tensor_digest import tensor_digest


def weight_inputs(checkpoint: Checkpoint, bound: dict[str, BoundWeight]) -> dict[str, WeightInput]:
    """Return what engine.json says of each bound weight, with its digest."""
    return {
        name: WeightInput(
            sha256=tensor_digest(checkpoint[weight.tensor]), **dataclasses.asdict(weight)
        )
        for name, weight in bound.items()
    }
