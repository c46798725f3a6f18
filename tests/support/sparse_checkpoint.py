"""Checkpoints of real widths as sparse files: the weights are zeros that take no disk."""

import json
import math
import struct
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names

QUANTIZED = {
    "bf16": None,
    "int8-wo": "W8A16",
    "int4-wo": "W4A16_AWQ",
    "int8-sq": "W8A8_SQ_PER_CHANNEL",
    "fp8": "FP8",
}
BYTES = {"BF16": 2, "F32": 4, "I8": 1, "F8_E4M3": 1, "U8": 1}
GROUP = 64
WEIGHT_ONLY = ("int8-wo", "int4-wo")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def write_sparse(folder: Path, model: str, precision: str, *, is_slice: bool = False) -> Path:
    """Write a checkpoint of a model that the planner knows, quantized as the recipes do.

    Scales differ from each other. A slice has one layer of each kind, and a small vocabulary.
    """
    raw = raw_config(model)
    if is_slice:
        raw |= {"vocab_size": 1024}
        if raw["model_type"] == "nemotron_h":
            raw |= {"hybrid_override_pattern": "M-*", "num_hidden_layers": 3}
        else:
            raw |= {"num_hidden_layers": 1}
    config = parse_model_config(raw)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw))
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in _tensors(config, precision).items():
        begin, end = end, end + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
        for name, entry in header.items():
            if name.endswith("_scale"):
                file.seek(8 + len(text) + entry["data_offsets"][0])
                values = np.asarray(rng.uniform(0.01, 0.02, entry["shape"]), "<f4")
                file.write(values.tobytes())
    if algo := QUANTIZED[precision]:
        quantization = {"quantization": {"quant_algo": algo, "exclude_modules": ["lm_head"]}}
        (folder / "hf_quant_config.json").write_text(json.dumps(quantization))
    return folder


def raw_config(model: str) -> dict[str, Any]:
    """Return the config.json of a model that ships with the planner."""
    file = resources.files("nemotrt.profiles.planning.sources") / "models" / f"{model}.json"
    raw: dict[str, Any] = json.loads(file.read_text())["config"]
    return raw


def _tensors(config: ModelConfig, precision: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name -> (dtype, shape); attention keeps 16 bits but for int8-wo, as in the recipes."""
    linears = set(linear_names(config)) if QUANTIZED[precision] else set()
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in expected_shapes(config).items():
        is_kept = precision not in WEIGHT_ONLY and any(word in name for word in ATTENTION)
        if name not in linears or is_kept:
            found[name] = ("BF16", shape)
            continue
        module = name.removesuffix(".weight")
        if precision == "int4-wo":
            rows, columns = shape
            found[name] = ("U8", (rows // 2, columns))
            found[f"{module}.weight_scale"] = ("F32", (rows, columns // GROUP))
            continue
        found[name] = ("F8_E4M3" if precision == "fp8" else "I8", shape)
        found[f"{module}.weight_scale"] = ("F32", () if precision == "fp8" else shape[:1])
        if precision not in WEIGHT_ONLY:
            found[f"{module}.input_scale"] = ("F32", ())
    return found
