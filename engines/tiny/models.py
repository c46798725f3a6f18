"""The trained tiny models of the package by name, and the config of one of any size."""

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TINY_MODELS = {"tiny": FOLDER / "nemotron_h", "tiny-dense": FOLDER / "qwen3"}


def hybrid_config(pattern: str, **sizes: Any) -> dict[str, Any]:
    """Return the config.json of a hybrid; what `sizes` leave out is as in Nano-9B-v2."""
    return {
        "model_type": "nemotron_h",
        "hybrid_override_pattern": pattern,
        "head_dim": 128,
        "mamba_head_dim": 80,
        "ssm_state_size": 128,
        "n_groups": 8,
        "conv_kernel": 4,
        "chunk_size": 128,
        "mlp_hidden_act": "relu2",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
        **sizes,
    }
