"""Rotary position tables, rounded as transformers rounds them."""

import numpy as np
import numpy.typing as npt

from nemotrt.engines.model.model_config import ModelConfig


def rotary_tables(
    config: ModelConfig, max_seq_len: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return (cos, sin), each float32 [max_seq_len, head_dim / 2].

    Angles are float32 products, as in transformers' RotaryEmbedding, so that long positions agree.
    """
    assert config.rope_theta is not None
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = np.float32(1) / np.float32(config.rope_theta) ** exponents
    angles = np.arange(max_seq_len, dtype=np.float32)[:, None] * frequencies[None, :]
    return np.cos(angles), np.sin(angles)
