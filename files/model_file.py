"""One YAML or JSON document as a frozen pydantic model; a fault is one line with file and key."""

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nemotrt.errors import ArtefactError, ConfigError, NemotrtError, nearest_hint, unknown_name
from nemotrt.files.strict import STRICT
from nemotrt.files.text_file import parse_yaml

M = TypeVar("M", bound=BaseModel)
MAX_SHOWN = 60  # characters of a value that an error repeats


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = STRICT


def yaml_model(
    model: type[M], text: str, source: str, error: type[NemotrtError] = ConfigError
) -> M:
    """Return a YAML text as a `model`; `source` names it in the error.

    Raises:
        NemotrtError: of class `error`: not YAML, an unknown or missing key, a value out of range.
    """
    raw = parse_yaml(text, source, error)
    if not isinstance(raw, dict):
        raise error(f"{source} must be a mapping of keys, got {type(raw).__name__}.")
    return object_model(model, raw, source, error)


def yaml_names(folder: Traversable) -> list[str]:
    """Return the names of the YAML files in a folder of the package."""
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir())


def named_model(model: type[M], folder: Traversable, name: str, what: str) -> M:
    """Return the YAML file of a name in a folder of the package; `what` says what it names.

    Raises:
        ConfigError: there is none of that name, or it is not of the form.
    """
    if name not in yaml_names(folder):
        raise unknown_name(what, name, yaml_names(folder))
    return yaml_model(model, (folder / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")


def object_model(
    model: type[M], raw: Mapping[str, Any], source: str, error: type[NemotrtError] = ConfigError
) -> M:
    """Return an object that was read as a `model`; raises `error` for what is not of its form."""
    try:
        return model.model_validate(raw)
    except ValidationError as fault:
        raise error(f"{source}: {fault_line(fault, model)}") from fault


def json_model(model: type[M], path: Path, noun: str | None = None) -> M:
    """Return a JSON file as a `model`; `noun` says in the error what the file is not.

    Raises:
        ArtefactError: it can't be read, is not JSON, or is not of this schema.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as fault:
        raise ArtefactError(f"{path} can't be read: {fault.strerror or fault}.") from fault
    except ValidationError as fault:
        source = f"{path} is no {noun}" if noun else path
        raise ArtefactError(f"{source}: {fault_line(fault, model)}") from fault


def fault_line(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first fault of a file as a line.

    A key that is missing may be misspelt: then the unknown key beside it is the fault.
    """
    first, *others = error.errors(include_url=False)
    if first["type"] == "missing":
        beside = (fault for fault in others if fault["loc"][:-1] == first["loc"][:-1])
        first = next((fault for fault in beside if fault["type"] == "extra_forbidden"), first)
    key = place(first)
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest_hint(str(first['loc'][-1]), _keys(model))}"
    value = repr(first["input"]) if isinstance(first["input"], str | int | float) else ""
    got = f", got {value}" if 0 < len(value) <= MAX_SHOWN else ""
    return f"{key or 'the file'}: {first['msg']}{got}."


def place(fault: ErrorDetails) -> str:
    """Return the dotted key that a fault is of; "" for the whole."""
    parts = map(str, fault["loc"])
    return ".".join(part for part in parts if not part.startswith("("))  # tags of unions


def _keys(model: type[BaseModel]) -> set[str]:
    """Return the keys of a model and of the models inside it."""
    names = set(model.model_fields)
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names |= _keys(kind)
    return names
