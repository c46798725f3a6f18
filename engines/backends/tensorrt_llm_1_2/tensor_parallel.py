"""Which part of a tensor each of the GPUs that share a model holds.

A dimension is made of sections, such as in_proj's rows z, x, B, C, dt; each rank takes the same
share of every section, so that its rows are again z, x, B, C, dt of its own heads and groups.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.model.model_config import MambaConfig, ModelConfig


def sections_of_in_proj(mamba: MambaConfig) -> tuple[int, ...]:
    """Return the rows of z, x, B, C and dt."""
    state = mamba.num_groups * mamba.state_size
    return (mamba.inner_size, mamba.inner_size, state, state, mamba.num_heads)


def sections_of_conv(mamba: MambaConfig) -> tuple[int, ...]:
    """Return the channels of x, B and C."""
    state = mamba.num_groups * mamba.state_size
    return (mamba.inner_size, state, state)


def rank_slices(sections: Sequence[int], rank: int, size: int) -> list[slice]:
    """Return what rank `rank` of `size` takes of a dimension; every section divides by `size`."""
    slices, start = [], 0
    for length in sections:
        share = length // size
        slices.append(slice(start + rank * share, start + (rank + 1) * share))
        start += length
    return slices


def head_slice(num_heads: int, head_dim: int, rank: int, size: int) -> slice:
    """Return the rows of a rank's heads; fewer heads than ranks are held by several ranks each.

    Source: TensorRT-LLM layers/attention.py: a rank has ceil(num_heads / size) KV heads.
    """
    if num_heads >= size:
        return rank_slices((num_heads * head_dim,), rank, size)[0]
    head = rank * num_heads // size
    return slice(head * head_dim, (head + 1) * head_dim)


def take(array: npt.NDArray[Any], slices: Sequence[slice], axis: int) -> npt.NDArray[Any]:
    """Return the slices along `axis`, joined; a view where there is one slice."""
    before = (slice(None),) * axis
    parts = [array[(*before, part)] for part in slices]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def check_divides(config: ModelConfig, size: int) -> list[str]:
    """Return what of the model does not divide among `size` ranks; empty if all does."""
    counts = {
        "attention heads": config.num_attention_heads,
        "MLP columns": config.intermediate_size,
        "vocabulary entries": config.vocab_size,
    }
    if config.mamba is not None:
        counts |= {"groups": config.mamba.num_groups, "Mamba heads": config.mamba.num_heads}
    faults = [f"{count} {name}" for name, count in counts.items() if count % size]
    kv_heads = config.num_key_value_heads
    if config.num_attention_layers and kv_heads % size and size % kv_heads:
        faults.append(f"{kv_heads} KV heads")
    return faults
