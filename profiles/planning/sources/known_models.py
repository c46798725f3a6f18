"""Which model a name or a config.json means."""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint.hub.cache import PREFIX, hub_cache, repository_of
from nemotrt.engines.checkpoint.hub.hub_id import parse_hub_id
from nemotrt.engines.model.config_fields import Fields
from nemotrt.engines.model.hf_config import language_config, parse_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError, unknown_name
from nemotrt.files.text_file import read_json_object
from nemotrt.profiles.planning.sources.dense_config import check_layers, parse_dense_config
from nemotrt.profiles.planning.sources.model_source import ModelSource, read_source

MODEL_FOLDER = resources.files("nemotrt.profiles.planning.sources") / "models"


def known_models() -> list[str]:
    """Return the model names that need no file."""
    return sorted(path.name.removesuffix(".json") for path in MODEL_FOLDER.iterdir())


def load_model(name: str) -> ModelConfig:
    """Return the model of a known or shipped name, a config.json, a folder, or a hub id.

    Raises:
        ArtefactError: a file is damaged.
        ConfigError: no such name or file, or a model that the planner does not know.
    """
    return load_source(name).model


def load_source(name: str) -> ModelSource:
    """Return the model of a name, as `load_model`, and what its files say of its formats.

    Raises:
        ArtefactError: a file is damaged.
        ConfigError: no such name or file, or an architecture or a quantization that the planner
            does not know.
    """
    if name in known_models():
        return _shipped(name)
    path = Path(name)
    if path.suffix == ".gguf" and path.is_file():
        from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder  # numpy: only here

        return _of_folder(checkpoint_folder(name), has_weights=True)
    if path.is_file():
        raw = read_json_object(path)
        is_beside = path.name == "config.json" and _has_weights(path.parent)
        told = raw | language_config(raw, str(path))[0]
        return read_source(told, _parse(raw, str(path)), path, has_weights=is_beside)
    if path.is_dir() and repository_of(path) is None:
        return _of_folder(path, _has_weights(path))
    if name in TINY_MODELS:
        return _of_folder(TINY_MODELS[name], has_weights=True)
    if PREFIX in name or (parse_hub_id(name) and path.suffix != ".json"):
        return _of_folder(*_snapshot(name, hub_cache()))
    if path.suffix == ".json" or len(path.parts) > 1:
        raise ConfigError(f"{path} does not exist; known models: {', '.join(known_models())}.")
    known = [*known_models(), *TINY_MODELS, "a config.json", "a checkpoint folder", "a hub id"]
    raise unknown_name("model", name, known)


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.gguf"))


@cache
def _snapshot(name: str, cache: Path) -> tuple[Path, bool]:
    """Return a repository's snapshot, and whether all its weights are in it.

    Its configuration alone is downloaded, once a process; `cache` is where to.
    """
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.engines.checkpoint.hub.parts import Part, lacking_weights

    folder = checkpoint_folder(name, Part.CONFIG, quiet=True)
    return folder, not lacking_weights(folder)


def _of_folder(folder: Path, has_weights: bool) -> ModelSource:
    """Return the model in a checkpoint folder, by its weights too where it has them."""
    config = folder / "config.json"
    if not config.is_file():
        raise ConfigError(f"{folder} has no config.json.")
    raw = read_json_object(config)
    model = _parse(raw, str(config))
    if has_weights and model.tie_word_embeddings:
        from nemotrt.engines.checkpoint.checkpoint import (
            with_stored_head,  # numpy: only where it must be
        )

        model = with_stored_head(folder, model)
    told = raw | language_config(raw, str(config))[0]
    return read_source(told, model, config, has_weights=has_weights)


@cache
def _shipped(name: str) -> ModelSource:
    raw = json.loads((MODEL_FOLDER / f"{name}.json").read_text())["config"]
    return read_source(raw, _parse(raw, f"{name}.json"), f"{name}.json")


def _parse(raw: dict[str, Any], source: str) -> ModelConfig:
    """Return the model by the engines' reader, or by the planner's own for other dense types."""
    told, place = language_config(raw, source)
    fields = Fields(told, place)
    model_type = fields.text("model_type")
    if model_type == "qwen3":
        check_layers(fields, told)
    if model_type in ("nemotron_h", "qwen3"):
        return parse_model_config(raw, source)
    return parse_dense_config(raw, source)
