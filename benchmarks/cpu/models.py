"""The models of the benchmark: the shipped tiny one, one of 263 million parameters, 9B slices.

All but the tiny one have random bfloat16 weights: time does not depend on what weights say.
"""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nemotrt.engines.checkpoint.stored.safetensors_file import header_bytes
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.engines.tiny.models import TINY_MODELS, hybrid_config

COMMON = {
    "architectures": ["NemotronHForCausalLM"],
    "vocab_size": 32768,
    "max_position_embeddings": 65536,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MID = hybrid_config(
    "M-M-M-M*-M-M-M*-M-M-M-M-",
    **COMMON,
    num_hidden_layers=24,
    hidden_size=1024,
    intermediate_size=3584,
    num_attention_heads=8,
    num_key_value_heads=2,
    mamba_num_heads=32,
)
# Every width of NVIDIA-Nemotron-Nano-9B-v2, an eighth of its layers, a quarter of its vocabulary.
WIDE = hybrid_config(
    "M-M*-M-",
    **COMMON,
    num_hidden_layers=7,
    hidden_size=4480,
    intermediate_size=15680,
    num_attention_heads=40,
    num_key_value_heads=8,
    mamba_num_heads=128,
)
# A quarter of its layers, of each kind a quarter: of `wide` twice as many attend.
QUARTER = WIDE | {"hybrid_override_pattern": "M-M-MM-M*-M-M-", "num_hidden_layers": 14}
FULL = WIDE | {
    "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
    "num_hidden_layers": 56,
    "vocab_size": 131072,
}
# The twin of `mid` without Mamba layers: as many layers and parameters, each mixer an attention.
DENSE = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 32768,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 65536,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MAX_DRAWS = 1 << 25
CONFIGS = {"mid": MID, "wide": WIDE, "quarter": QUARTER, "full": FULL, "dense": DENSE}


def checkpoint(name: str, folder: Path) -> Path:
    """Return the checkpoint of a model; a random one is written to `folder`."""
    if name == "tiny":
        return TINY_MODELS["tiny"]
    target = folder / name
    if not (target / "model.safetensors").exists():
        _write(target, CONFIGS[name])
    return target


def _write(folder: Path, config: dict[str, Any]) -> None:
    """Write config.json and random weights, one tensor at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    shapes = expected_shapes(read_model_config(folder))
    rng = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header_bytes((name, "BF16", shape) for name, shape in shapes.items()))
        for name, shape in shapes.items():
            file.write(_weight(name, shape, rng).tobytes())


def _weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a random weight that keeps activations near unit variance."""
    if "norm" in name or name.endswith(".D"):
        return np.ones(shape, ml_dtypes.bfloat16)
    if name.endswith("A_log"):  # decay rates of 1 to 16, as at initialization
        return np.log(rng.uniform(1, 16, shape)).astype(ml_dtypes.bfloat16)
    if name.endswith("dt_bias"):  # time steps of 0.001 to 0.1 after softplus
        step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), shape))
        return (step + np.log(-np.expm1(-step))).astype(ml_dtypes.bfloat16)
    fan_in = shape[-1] if len(shape) > 1 else 4
    scale = 1.0 if "embed" in name else fan_in**-0.5
    # what a tensor has beyond MAX_DRAWS repeats: drawing 9e9 numbers takes long
    count = int(np.prod(shape))
    pool = rng.standard_normal(min(count, MAX_DRAWS), np.float32) * np.float32(scale)
    return np.resize(pool.astype(ml_dtypes.bfloat16), count).reshape(shape)
