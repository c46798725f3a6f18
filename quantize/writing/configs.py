"""The two files that say how a checkpoint is quantized, always from one description."""

import json
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.quantized.config import MIXED, QUANT_CONFIG_FILE
from nemotrt.engines.checkpoint.stored_head import settled_json
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection


def write_configs(
    checkpoint: Checkpoint,
    target: Path,
    recipe: Recipe,
    layout: CheckpointFormat,
    selection: Selection,
    kv_cache: str = "none",
) -> None:
    """Write config.json, and for ModelOpt's layout hf_quant_config.json, into `target`."""
    config = settled_json(checkpoint.path, checkpoint.config)
    if layout is CheckpointFormat.MODELOPT:
        config["quantization_config"] = _modelopt_flat(recipe, selection, kv_cache)
        _write(target / QUANT_CONFIG_FILE, _modelopt_nested(recipe, selection, kv_cache))
    else:
        config["quantization_config"] = _compressed_tensors(recipe, selection, kv_cache)
    if config.get("model_type") == "nemotron_h":
        config["mamba_ssm_cache_dtype"] = "float32"  # as the model card asks
    _write(target / "config.json", config)


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _producer() -> dict[str, str]:
    return {"name": "nemotrt", "version": version("nemotrt")}


def _modelopt_nested(recipe: Recipe, selection: Selection, kv_cache: str) -> dict[str, Any]:
    return {
        "producer": _producer(),
        "quantization": {
            **_algorithm(recipe, selection),
            "kv_cache_quant_algo": None if kv_cache == "none" else kv_cache.upper(),
            "exclude_modules": list(selection.exclude),
        },
    }


def _algorithm(recipe: Recipe, selection: Selection) -> dict[str, Any]:
    """Return the algorithm of all linears, or of each where they have several.

    Source: ModelOpt 0.47, export/quant_utils.py, process_layer_quant_config.
    """
    own = {"quant_algo": recipe.algo, **_groups(recipe)}
    if not selection.is_mixed:
        return own
    layers = {
        name.removesuffix(".weight"): {"quant_algo": Precision.INT8_WO.algo}
        if name in selection.int8
        else own
        for name in selection.weights
    }
    return {"quant_algo": MIXED, "quantized_layers": layers}


def _groups(recipe: Recipe) -> dict[str, Any]:
    """Return what ModelOpt says beside an algorithm with scales for groups of inputs."""
    if recipe.group_size is None:
        return {}
    told: dict[str, Any] = {"group_size": recipe.group_size}
    if recipe.precision.weights.has_second_scale:
        return told
    return told | {"has_zero_point": False, "pre_quant_scale": False}


def _modelopt_flat(recipe: Recipe, selection: Selection, kv_cache: str) -> dict[str, Any]:
    """Return what vLLM reads from config.json; it says the same as the nested form."""
    flat: dict[str, Any] = {
        "quant_method": "modelopt",
        **_algorithm(recipe, selection),
        "ignore": list(selection.exclude),
        "producer": _producer(),
    }
    if recipe.precision is Precision.FP8:
        scheme = _static(NumberFormat.FP8)
        group = {"weights": scheme, "input_activations": scheme, "targets": ["Linear"]}
        flat["config_groups"] = {"group_0": group}
    if kv_cache != "none":
        flat["kv_cache_scheme"] = _static(NumberFormat(kv_cache))
    return flat


def _static(code: NumberFormat) -> dict[str, Any]:
    return {"dynamic": False, "num_bits": code.num_bits, "type": code.kind}


def _compressed_tensors(recipe: Recipe, selection: Selection, kv_cache: str) -> dict[str, Any]:
    """Return the quantization_config of the compressed-tensors library."""
    weights, inputs = recipe.precision.weights, recipe.precision.inputs
    name = f"{weights.format.kind if inputs.is_quantized else 'pack'}-quantized"
    if weights.has_second_scale:
        name = "nvfp4-pack-quantized"
    own = {"group_size": recipe.group_size} if recipe.group_size else {}
    shared = {"input_activations": inputs.scheme, "output_activations": None}
    schemes = {"weights": weights.scheme and weights.scheme | own} | shared
    groups: dict[str, Any] = {"group_0": {"targets": ["Linear"], **schemes}}
    if selection.is_mixed:
        wide = {"weights": Precision.INT8_WO.weights.scheme} | shared
        groups = {
            "group_0": {"targets": _modules(set(selection.weights) - selection.int8), **schemes},
            "group_1": {"targets": _modules(selection.int8), **wide},
        }
    scheme = None
    if kv_cache != "none":
        scheme = _static(NumberFormat(kv_cache)) | {"strategy": "tensor", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": name,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": _both_spellings(selection.exclude),
        "kv_cache_scheme": scheme,
    }


def _modules(weights: Collection[str]) -> list[str]:
    """Return the modules of these weights, spelled as loaders look for them."""
    names = sorted(name.removesuffix(".weight") for name in weights)
    return _both_spellings(tuple(names))


def _both_spellings(modules: tuple[str, ...]) -> list[str]:
    """Return hub names and transformers' own: it renames tensors, but not the ignore list."""
    renamed = (f"model.{name.removeprefix('backbone.')}" for name in modules if "backbone" in name)
    return [*modules, *renamed]
