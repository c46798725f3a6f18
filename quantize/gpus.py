"""Which recipe a GPU gets by default, and which it can't run."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import ConfigError, unknown_name
from nemotrt.quantize.conversion.formats import Format
from nemotrt.quantize.recipes.recipe import Recipe, load_recipe

GPU_FILE = Path(__file__).parent / "gpus.yaml"
FP8_COMPUTE_CAPABILITY = 8.9


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """What a GPU can run and what it gets when nothing else is said."""

    name: str
    compute_capability: float
    recipe: str
    format: str


def load_gpus() -> dict[str, GpuChoice]:
    """Return the known GPUs by name."""
    raw = yaml.safe_load(GPU_FILE.read_text(encoding="utf-8"))
    return {name: GpuChoice(name=name, **values) for name, values in raw.items()}


def choose_recipe(recipe: str | None, gpu: str | None, kv_cache: str = "none") -> Recipe:
    """Return the recipe by name or file, or the GPU's default, checked against the GPU.

    Raises:
        ConfigError: a name is unknown, neither is given, or the GPU can't run the recipe.
    """
    if gpu is None:
        if recipe is None:
            raise ConfigError("give --recipe, or --gpu to take its default recipe.")
        return load_recipe(recipe)
    gpus = load_gpus()
    if gpu not in gpus:
        raise unknown_name("GPU", gpu, gpus)
    choice = gpus[gpu]
    chosen = load_recipe(recipe or choice.recipe)
    have = choice.compute_capability
    if have < chosen.min_compute_capability:
        is_fp8 = chosen.precision.arithmetic is NumberFormat.FP8
        why = f": no FP8 tensor cores before {FP8_COMPUTE_CAPABILITY}" if is_fp8 else ""
        raise ConfigError(
            f"{chosen.name} needs compute capability {chosen.min_compute_capability}, "
            f"{gpu} has {have}{why}. Use --recipe {chosen.alternative or choice.recipe}."
        )
    if kv_cache == "fp8" and have < FP8_COMPUTE_CAPABILITY:
        raise ConfigError(
            f"--kv-cache fp8 needs compute capability {FP8_COMPUTE_CAPABILITY}, {gpu} has {have}. "
            "Use --kv-cache int8 or none."
        )
    return chosen


def choose_format(layout: str | None, gpu: str | None) -> Format:
    """Return the format by name, or the one that suits the GPU's backend.

    Raises:
        ConfigError: the name is unknown.
    """
    name = layout or (load_gpus()[gpu].format if gpu else Format.MODELOPT.value)
    if name not in list(Format):
        raise unknown_name("format", name, [item.value for item in Format])
    return Format(name)
