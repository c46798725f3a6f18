"""The models and CPUs that the snapshot of plans names, beside those that ship."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file

from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.profiles.planning.cpu.cpu_rates import Timings, cpu_profile
from nemotrt.profiles.planning.cpu.rates_profile import Machine

CPU_ENGINES = ("native", "onnxruntime")
CPU_PRECISIONS = ("bf16", "int8-wo")
# A probe's seconds on two cores with about 105 GB/s and 0.4 TFLOPS, of which 8 rows get two thirds.
SEEN: Timings = {
    "linears": {"one": 4.5e-3, "batch": 9.0e-3, "prompt": 25.0e-3},
    "cached": {"one": 0.12e-3},
    "states": {"one": 0.40e-3, "batch": 2.9e-3},
    "small": {"one": 0.40e-3, "batch": 0.9e-3},
}
INT4_GROUPS = {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64}}
QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "modelopt-fp8": {
        "quant_method": "modelopt",
        "quant_algo": "FP8",
        "kv_cache_scheme": {"num_bits": 8, "type": "float"},
        "ignore": ["lm_head", "*.mixer.q_proj", "backbone.layers.1*"],
    },
    "modelopt-w8a16": {"quant_method": "modelopt", "quant_algo": "W8A16"},
    "modelopt-int4": {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 128},
    "awq": {"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["in_proj", "o_proj"]},
    "gptq-8": {"quant_method": "gptq", "bits": 8, "group_size": 64},
    "fp8-blocks": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "tensors-int4": {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": INT4_GROUPS},
        "ignore": ["lm_head", r"re:.*layers\.[0-9]\..*"],
    },
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "hqq": {"quant_method": "hqq"},
}
SOURCES = {
    "tiny": TINY_MODELS["tiny"] / "config.json",
    "nano": resources.files("nemotrt.profiles.planning.sources")
    / "models/nemotron-nano-9b-v2.json",
    "qwen": resources.files("nemotrt.profiles.planning.sources") / "models/qwen3-8b.json",
}
PHI = {
    "model_type": "phi",
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "tie_word_embeddings": True,
}


def write_models(folder: Path) -> None:
    """Write configs of many quantizations, a checkpoint and CPU profiles."""
    for name, source in SOURCES.items():
        raw = json.loads(source.read_text())
        raw = raw.get("config", raw)
        for title, quantization in QUANTIZATIONS.items():
            _write(folder / f"{name}-{title}.json", {**raw, "quantization_config": quantization})
    _write(folder / "phi.json", PHI)
    _write_checkpoint(folder / "int8")
    for engine in CPU_ENGINES:
        for precision in CPU_PRECISIONS:
            machine = Machine("a CPU", 65_536, 32.0)
            profile = cpu_profile(machine, engine, Precision(precision), SEEN)
            text = yaml.safe_dump(profile.model_dump(mode="json", exclude_none=True))
            (folder / f"cpu-{engine}-{precision}.yaml").write_text(text)


def _write(path: Path, raw: dict[str, Any]) -> None:
    path.write_text(json.dumps(raw))


def _write_checkpoint(folder: Path) -> None:
    """Write the tiny model with codes in int8 in all linears but one MLP's and attention's."""
    folder.mkdir()
    raw = json.loads((TINY_MODELS["tiny"] / "config.json").read_text())
    raw["quantization_config"] = QUANTIZATIONS["modelopt-w8a16"]
    _write(folder / "config.json", raw)
    tensors: dict[str, Any] = {}
    with safe_open(TINY_MODELS["tiny"] / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            shape = file.get_slice(name).get_shape()
            is_left = any(part in name for part in ("layers.1.", "q_proj", "o_proj"))
            is_quantized = name.endswith("_proj.weight") and not is_left
            tensors[name] = np.zeros(shape, np.int8 if is_quantized else np.float16)
            if is_quantized:
                tensors[f"{name}_scale"] = np.ones(shape[0], np.float32)
    save_file(tensors, folder / "model.safetensors")
