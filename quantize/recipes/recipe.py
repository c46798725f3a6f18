"""A recipe: which linears are quantized, how they are stored, and what the GPU must have."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from nemotrt.engines.model.model_config import LayerKind
from nemotrt.engines.model.numerics import FP4_GROUP, GROUP_SIZES, QUANTIZED, Precision
from nemotrt.errors import ArtefactError, ConfigError, unknown_name
from nemotrt.files.model_file import Strict, yaml_model
from nemotrt.files.text_file import read_text

SIZES = {Precision.INT4_WO: GROUP_SIZES, Precision.NVFP4_WO: (FP4_GROUP,)}
RECIPE_FOLDER = Path(__file__).parent
Leaves = dict[str, dict[LayerKind, tuple[str, ...]]]  # model type -> kind of block -> linears


class RecipeFile(Strict):
    """The keys of a recipe file."""

    description: str
    algo: Literal[("none", *QUANTIZED)]  # type: ignore[valid-type]  # ModelOpt's word
    min_compute_capability: float = Field(ge=7.0)
    alternative: str | None = None
    smoothquant_alpha: float | None = Field(default=None, ge=0.0, le=1.0)
    group_size: Literal[(FP4_GROUP, *GROUP_SIZES)] | None = None  # type: ignore[valid-type]
    quantize: Leaves
    keep: Leaves = Field(default_factory=dict)


class Recipe(RecipeFile):
    """What to do to a checkpoint; see quantize/recipes for the built-in ones."""

    name: str

    @property
    def precision(self) -> Precision:
        """How the linears are stored, and multiplied later."""
        return QUANTIZED[self.algo]

    def with_groups(self, size: int | None) -> "Recipe":
        """Return the recipe with groups of `size`, if it has groups and a size is given."""
        if size is None or self.precision is not Precision.INT4_WO:
            return self
        return self.model_copy(update={"group_size": size})


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
    values = yaml_model(RecipeFile, read_text(path, ArtefactError), f"recipe {path}")
    if values.algo == "none":
        raise ConfigError(f"recipe {path}: algo 'none' quantizes nothing.")
    if values.smoothquant_alpha is not None and not QUANTIZED[values.algo].is_smoothed:
        raise ConfigError(f"recipe {path}: smoothquant_alpha needs algo W8A8_SQ_PER_CHANNEL.")
    if values.group_size not in SIZES.get(QUANTIZED[values.algo], (None,)):
        sizes = ", ".join(map(str, GROUP_SIZES))
        raise ConfigError(
            f"recipe {path}: group_size, one of {sizes}, is for algo "
            f"{Precision.INT4_WO.algo}, and for that alone; {FP4_GROUP} is "
            f"{Precision.NVFP4_WO.algo}'s."
        )
    _check_disjoint(values, path)
    return Recipe(name=path.stem, **dict(values))


def _check_disjoint(values: RecipeFile, path: Path) -> None:
    """Raise if a linear is both quantized and kept."""
    for model_type, kinds in values.quantize.items():
        for kind, leaves in kinds.items():
            for leaf in leaves:
                if leaf in values.keep.get(model_type, {}).get(kind, ()):
                    raise ConfigError(
                        f"recipe {path}: {model_type} {kind} {leaf} is in both quantize and keep."
                    )
