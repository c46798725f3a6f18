"""The largest magnitude of weights that have one scale per tensor together."""

import math
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import Precision
from nemotrt.quantize.conversion.convert import rows_amax, split_rows
from nemotrt.quantize.conversion.layout import Linear
from nemotrt.quantize.recipes.selection import Selection, sharing_scale
from nemotrt.quantize.scales.column_amax import num_threads


def common_amaxes(checkpoint: Checkpoint, selection: Selection) -> dict[str, np.float32]:
    """Return weight -> largest magnitude of its group, for the selected weights in a group.

    Raises:
        ArtefactError: a weight holds NaN or infinity.
    """
    groups = sharing_scale(checkpoint.config)
    names = [name for name in selection.weights if name in groups]
    own = {name: tensor_amax(checkpoint[name]) for name in names}
    return {name: max(own[other] for other in groups[name]) for name in names}


def has_one_scale(tensors: Mapping[str, TensorRef], weights: Collection[str]) -> bool:
    """Whether the stored scales of these weights are one per tensor each, and all the same."""
    names = [f"{name.removesuffix('.weight')}.weight_scale" for name in weights]
    found = {tensors[name].map().tobytes() for name in names if name in tensors}
    is_whole = all(name in tensors and math.prod(tensors[name].shape) == 1 for name in names)
    return is_whole and len(found) == 1


def tensor_amax(ref: TensorRef) -> np.float32:
    """Return the largest magnitude of the weight at `ref`, read in chunks on all cores."""
    chunks = split_rows(Linear(ref.name, ref, Precision.FP8.weights))
    fd = os.open(ref.path, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(num_threads()) as pool:
            return max(pool.map(partial(rows_amax, fd), chunks), default=np.float32(0))
    finally:
        os.close(fd)
