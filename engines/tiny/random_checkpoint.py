"""A checkpoint folder with random float32 weights: time does not depend on what weights say."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from nemotrt.engines.checkpoint.stored.safetensors_file import header_bytes
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.tensor_names import expected_shapes


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int = 0) -> None:
    """Write config.json and model.safetensors; the variance of a weight is 1 / its fan-in."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    random = np.random.default_rng(seed)
    shapes = expected_shapes(parse_model_config(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header_bytes((name, "F32", shape) for name, shape in shapes.items()))
        for name, shape in shapes.items():
            fan_in = shape[-1] if len(shape) > 1 else 1
            noise = random.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)
            if "norm" in name:
                noise = np.ones(shape, np.float32)
            file.write(noise.astype("<f4").tobytes())
