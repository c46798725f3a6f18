"""What an adapter is by itself, without its base model: for `nemotrt inspect`."""

import math
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint.lora.adapter import TENSOR_FILE
from nemotrt.engines.checkpoint.lora.config import CONFIG_FILE, read_adapter_config
from nemotrt.engines.checkpoint.lora.names import read_key
from nemotrt.engines.checkpoint.stored.safetensors_file import read_header

FLOAT32_BYTES = 4  # of an element beside the weights of a running engine


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter and no model."""
    return (folder / CONFIG_FILE).is_file() and not (folder / "config.json").is_file()


def summary(folder: Path) -> dict[str, Any]:
    """Return what an adapter's files say, as JSON has it.

    Raises:
        ArtefactError: a file is missing or damaged.
        ConfigError: it asks for what is not supported.
    """
    config = read_adapter_config(folder)
    refs, _ = read_header(folder / TENSOR_FILE)
    keys = {name: read_key(name) for name in refs}
    modules = {key.module for key in keys.values() if key}
    return {
        "schema_version": 1,
        "kind": "DoRA adapter" if config.use_dora else "LoRA adapter",
        "base_model": config.base_model_name_or_path,
        "ranks": sorted({config.rank(module) for module in modules}),
        "alpha": config.lora_alpha,
        "num_linears": len(modules),
        "linears": sorted({module.rpartition(".")[2] for module in modules}),
        "num_bytes": sum(ref.num_bytes for ref in refs.values()),
        "memory_bytes": FLOAT32_BYTES * sum(math.prod(ref.shape) for ref in refs.values()),
    }
