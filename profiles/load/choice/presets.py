"""Named workloads, from presets.yaml."""

from functools import cache
from pathlib import Path

import pydantic

from nemotrt.errors import unknown_name
from nemotrt.files.yaml_file import parse_yaml

FILE = Path(__file__).with_name("presets.yaml")


class Preset(pydantic.BaseModel):
    """Lengths and how many requests each user sends."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    description: str
    isl: int = pydantic.Field(ge=1)
    osl: int = pydantic.Field(ge=1)
    requests_per_user: int = pydantic.Field(ge=1)


class _Presets(pydantic.RootModel[dict[str, Preset]]):
    """The whole file."""


@cache
def presets() -> dict[str, Preset]:
    """Return every preset by name."""
    return parse_yaml(_Presets, FILE.read_text(encoding="utf-8"), str(FILE)).root


def preset(name: str) -> Preset:
    """Return a preset; raises ConfigError for an unknown name."""
    known = presets()
    if name not in known:
        raise unknown_name("preset", name, known)
    return known[name]
