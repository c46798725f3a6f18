"""Which model a name or a config.json means."""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from nemotrt.engines.config_fields import Fields
from nemotrt.engines.hf_config import parse_model_config
from nemotrt.engines.model_config import ModelConfig
from nemotrt.engines.tiny_models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError, unknown_name
from nemotrt.profiles.planning.dense_config import parse_dense_config

MODEL_FOLDER = resources.files("nemotrt.profiles.planning") / "models"


def known_models() -> list[str]:
    """Return the model names that need no file."""
    return sorted(path.name.removesuffix(".json") for path in MODEL_FOLDER.iterdir())


def load_model(name: str) -> ModelConfig:
    """Return the model of a known or shipped name, a config.json, or a checkpoint folder.

    Raises:
        ArtefactError: the file is not JSON.
        ConfigError: no such name or file, or an architecture that the planner does not know.
    """
    if name in known_models():
        return _shipped(name)
    path = TINY_MODELS.get(name, Path(name))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"{path} has no config.json.")
        model = _parse(_read_object(path / "config.json"), str(path / "config.json"))
        if not model.tie_word_embeddings:
            return model
        from nemotrt.engines.checkpoint import with_stored_head  # numpy: only where it must be

        return with_stored_head(path, model)
    if path.is_file():
        return _parse(_read_object(path), str(path))
    if path.suffix == ".json" or len(path.parts) > 1:
        raise ConfigError(f"{path} does not exist; known models: {', '.join(known_models())}.")
    known = [*known_models(), *TINY_MODELS, "a config.json", "a checkpoint folder"]
    raise unknown_name("model", name, known)


@cache
def _shipped(name: str) -> ModelConfig:
    raw = json.loads((MODEL_FOLDER / f"{name}.json").read_text())
    return _parse(raw["config"], f"{name}.json")


def _parse(raw: dict[str, Any], source: str) -> ModelConfig:
    """Return the model by the engines' reader, or by the planner's own for other dense types."""
    model_type = Fields(raw, source).text("model_type")
    if model_type in ("nemotron_h", "qwen3"):
        return parse_model_config(raw, source)
    return parse_dense_config(raw, source)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtefactError(f"{path} is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise ArtefactError(f"{path} is not a JSON object.")
    return raw
