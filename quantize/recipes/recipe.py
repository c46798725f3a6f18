"""A recipe: which linears are quantized, how they are stored, and what the GPU must have."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nemotrt.engines.model.model_config import LayerKind
from nemotrt.engines.model.numerics import QUANTIZED, Precision
from nemotrt.errors import ArtefactError, ConfigError, nearest_hint, unknown_name
from nemotrt.files.text_file import read_yaml

RECIPE_FOLDER = Path(__file__).parent
Leaves = dict[str, dict[LayerKind, tuple[str, ...]]]  # model type -> kind of block -> linears


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to do to a checkpoint; see quantize/recipes for the built-in ones."""

    name: str
    description: str
    algo: str  # ModelOpt's word
    min_compute_capability: float
    alternative: str | None = None
    smoothquant_alpha: float | None = None
    quantize: Leaves = field(default_factory=dict)
    keep: Leaves = field(default_factory=dict)

    @property
    def precision(self) -> Precision:
        """How the linears are stored, and multiplied later."""
        return QUANTIZED[self.algo]


class _RecipeFile(BaseModel):
    """The keys of a recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str
    algo: Literal[("none", *QUANTIZED)]  # type: ignore[valid-type]
    min_compute_capability: float = Field(ge=7.0)
    alternative: str | None = None
    smoothquant_alpha: float | None = Field(default=None, ge=0.0, le=1.0)
    quantize: Leaves
    keep: Leaves = Field(default_factory=dict)


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Return a built-in recipe by name, or the one in a YAML file of yours.

    Raises:
        ConfigError: the name is unknown, or a key of the file is unknown or has a wrong value.
        ArtefactError: the file can't be read.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if name_or_path not in recipe_names():
            raise unknown_name("recipe", name_or_path, recipe_names())
        path = RECIPE_FOLDER / f"{name_or_path}.yaml"
    return _parse(read_yaml(path, ArtefactError), path)


def _parse(raw: Any, path: Path) -> Recipe:
    """Return the recipe that `raw` spells, checked."""
    if not isinstance(raw, dict):
        raise ConfigError(f"recipe {path} must be a mapping with keys, got {raw!r}.")
    try:
        values = _RecipeFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"recipe {path}: {_first_fault(error)}.") from None
    if values.algo == "none":
        raise ConfigError(f"recipe {path}: algo 'none' quantizes nothing.")
    if values.smoothquant_alpha is not None and not QUANTIZED[values.algo].is_smoothed:
        raise ConfigError(f"recipe {path}: smoothquant_alpha needs algo W8A8_SQ_PER_CHANNEL.")
    _check_disjoint(values, path)
    return Recipe(
        name=path.stem, **{key: getattr(values, key) for key in type(values).model_fields}
    )


def _first_fault(error: ValidationError) -> str:
    """Return one fault as a line: an unknown key first, as it explains a missing one."""
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{key}: {fault['msg']}, got {fault.get('input')!r}"
    hint = nearest_hint(key, _RecipeFile.model_fields)
    return f"unknown key {key!r}{hint} Known: {', '.join(_RecipeFile.model_fields)}"


def _check_disjoint(values: _RecipeFile, path: Path) -> None:
    """Raise if a linear is both quantized and kept."""
    for model_type, kinds in values.quantize.items():
        for kind, leaves in kinds.items():
            for leaf in leaves:
                if leaf in values.keep.get(model_type, {}).get(kind, ()):
                    raise ConfigError(
                        f"recipe {path}: {model_type} {kind} {leaf} is in both quantize and keep."
                    )
