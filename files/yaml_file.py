"""Reads one YAML document into a frozen pydantic model; a fault names the file and the key."""

from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from nemotrt.errors import ConfigError, nearest_hint

M = TypeVar("M", bound=BaseModel)
# libyaml's parser where the wheel has it: ten times faster.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(model: type[M], text: str, source: str) -> M:
    """Return `text` as a `model`.

    Raises:
        ConfigError: not YAML, an unknown or missing key, or a value out of range.
    """
    try:
        raw = yaml.load(text, Loader=LOADER)  # LOADER is a safe one
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{source} must hold a mapping of keys, got {type(raw).__name__}.")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        is_unknown = first["type"] == "extra_forbidden"
        end = nearest_hint(str(first["loc"][-1]), _keys(model)) if is_unknown else "."
        raise ConfigError(f"{source}: {key}: {first['msg']}{end}") from error


def _keys(model: type[BaseModel]) -> set[str]:
    """Return the keys of a model and of the models inside it."""
    names = set(model.model_fields)
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names |= _keys(kind)
    return names
