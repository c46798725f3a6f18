"""Synthetic checkpoints of whole models, written as quantized codes: no 16-bit model is ever there.

The 9B in int8 (W8A16), and Nemotron-3-Nano-30B-A3B in int4 (ModelOpt's W4A16, groups of 64). Codes
are random and repeat: time does not depend on what weights say. With experts it does in part:
random streams are alike, so tokens choose few experts. At batch 1 alone the bytes of a step are
those of a trained model.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from models import FULL

from nemotrt.engines.checkpoint.stored.safetensors_file import header_bytes
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.engines.tiny.models import TINY_MODELS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.real_size import tokenizer_file
from support.sparse_checkpoint import raw_config

POOL = 1 << 24  # random codes, repeated: drawing 9e9 takes long
GROUP = 64  # inputs that share a scale
INT8_DEVIATION, INT4_DEVIATION = 73, 4.6  # of uniform codes, -127 to 127 and -8 to 7
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "9b": (FULL, "int8-wo"),
    "30b-a3b": (
        raw_config("nemotron-3-nano-30b-a3b")
        | {"architectures": ["NemotronHForCausalLM"]}
        | TOKENS,
        "int4-wo",
    ),
}
ALGORITHMS = {"int8-wo": "W8A16", "int4-wo": "W4A16_AWQ"}


def write_checkpoint(folder: Path, model: str) -> None:
    """Write a model of MODELS to the new folder; scales keep activations near 1."""
    config, precision = MODELS[model]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(tokenizer_file(), folder / "tokenizer.json")
    shutil.copy(TINY_MODELS["tiny"] / "tokenizer_config.json", folder)
    excluded = [] if precision == "int8-wo" else ["lm_head"]
    quantization = {"quant_algo": ALGORITHMS[precision], "exclude_modules": excluded}
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": quantization}))
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, POOL, np.int8)
    floats = (codes / np.float32(INT8_DEVIATION)).astype(ml_dtypes.bfloat16)
    fan_in = {name: shape[-1] for name, _, shape in tensors(folder, precision)}
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header_bytes(tensors(folder, precision)))
        for name, kind, shape in tensors(folder, precision):
            count = int(np.prod(shape))
            if kind in ("I8", "U8"):
                for start in range(0, count, POOL):
                    file.write(codes[: count - start].data)
            elif name.endswith("_scale"):
                deviation = INT8_DEVIATION if precision == "int8-wo" else INT4_DEVIATION
                scale = fan_in[name.removesuffix("_scale")] ** -0.5 / deviation
                values = np.full(count, scale, np.float32)
                file.write(
                    values.astype(np.float32 if kind == "F32" else ml_dtypes.bfloat16).tobytes()
                )
            elif len(shape) == 2:  # embeddings, and what else is not quantized
                size = 1 if "embeddings" in name else shape[1] ** -0.5
                part = (
                    floats if size == 1 else (floats.astype(np.float32) * size).astype(floats.dtype)
                )
                for start in range(0, count, POOL):
                    file.write(part[: count - start].tobytes())
            else:
                file.write(np.ones(count, ml_dtypes.bfloat16).tobytes())


def tensors(folder: Path, precision: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield each tensor's name, safetensors type and shape."""
    for name, shape in expected_shapes(read_model_config(folder)).items():
        if name.endswith("proj.weight") and precision == "int4-wo":
            rows, columns = shape
            yield name, "U8", (rows // 2, columns)
            yield f"{name}_scale", "BF16", (rows, columns // GROUP)
        elif name.endswith("proj.weight") or (name == "lm_head.weight" and precision == "int8-wo"):
            yield name, "I8", shape
            yield f"{name}_scale", "F32", shape[:1]
        else:
            yield name, "BF16", shape
