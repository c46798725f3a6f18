"""Named workloads, from presets.yaml."""

from functools import cache
from pathlib import Path

import pydantic

from nemotrt.errors import unknown_name
from nemotrt.files.model_file import Strict, yaml_model

FILE = Path(__file__).with_name("presets.yaml")


class Preset(Strict):
    """Lengths and how many requests each user sends; with `turns`, how many conversations."""

    description: str
    isl: int = pydantic.Field(ge=1)
    osl: int = pydantic.Field(ge=1)
    requests_per_user: int = pydantic.Field(ge=1)
    turns: int | None = pydantic.Field(default=None, ge=1)
    system_tokens: int = pydantic.Field(default=0, ge=0)
    think_s: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)


class _Presets(pydantic.RootModel[dict[str, Preset]]):
    """The whole file."""


@cache
def presets() -> dict[str, Preset]:
    """Return every preset by name."""
    return yaml_model(_Presets, FILE.read_text(encoding="utf-8"), str(FILE)).root


def preset(name: str) -> Preset:
    """Return a preset; raises ConfigError for an unknown name."""
    known = presets()
    if name not in known:
        raise unknown_name("preset", name, known)
    return known[name]
