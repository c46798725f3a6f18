"""A manifest's weight inputs, as a build writes them, without the compiler."""

import dataclasses

from nemotrt.engines.artefact.manifest import WeightInput
from nemotrt.engines.backends.tensorrt.graph.emitter import BoundWeight
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.stored.tensor_digest import tensor_digests


def weight_inputs(checkpoint: Checkpoint, bound: dict[str, BoundWeight]) -> dict[str, WeightInput]:
    """Return what engine.json says of each bound weight, with its digest."""
    found = tensor_digests([checkpoint[weight.tensor] for weight in bound.values()])
    return {
        name: WeightInput(sha256=digest, **dataclasses.asdict(weight))
        for (name, weight), digest in zip(bound.items(), found, strict=True)
    }
