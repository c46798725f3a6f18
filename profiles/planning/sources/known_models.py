"""Which model a name or a config.json means."""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from nemotrt.engines.model.config_fields import Fields
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError, unknown_name
from nemotrt.files.text_file import read_json_object
from nemotrt.profiles.planning.sources.dense_config import parse_dense_config
from nemotrt.profiles.planning.sources.model_source import ModelSource, read_source

MODEL_FOLDER = resources.files("nemotrt.profiles.planning.sources") / "models"


def known_models() -> list[str]:
    """Return the model names that need no file."""
    return sorted(path.name.removesuffix(".json") for path in MODEL_FOLDER.iterdir())


def load_model(name: str) -> ModelConfig:
    """Return the model of a known or shipped name, a config.json, or a checkpoint folder.

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
    path = TINY_MODELS.get(name, Path(name))
    if path.is_dir():
        config = path / "config.json"
        if not config.is_file():
            raise ConfigError(f"{path} has no config.json.")
        raw = read_json_object(config)
        model = _parse(raw, str(config))
        if model.tie_word_embeddings:
            from nemotrt.engines.checkpoint.checkpoint import (
                with_stored_head,  # numpy: only where it must be
            )

            model = with_stored_head(path, model)
        return read_source(raw, model, config)
    if path.is_file():
        raw = read_json_object(path)
        return read_source(raw, _parse(raw, str(path)), path)
    if path.suffix == ".json" or len(path.parts) > 1:
        raise ConfigError(f"{path} does not exist; known models: {', '.join(known_models())}.")
    known = [*known_models(), *TINY_MODELS, "a config.json", "a checkpoint folder"]
    raise unknown_name("model", name, known)


@cache
def _shipped(name: str) -> ModelSource:
    raw = json.loads((MODEL_FOLDER / f"{name}.json").read_text())["config"]
    return read_source(raw, _parse(raw, f"{name}.json"), f"{name}.json")


def _parse(raw: dict[str, Any], source: str) -> ModelConfig:
    """Return the model by the engines' reader, or by the planner's own for other dense types."""
    model_type = Fields(raw, source).text("model_type")
    if model_type in ("nemotron_h", "qwen3"):
        return parse_model_config(raw, source)
    return parse_dense_config(raw, source)
