"""Which recipe a GPU gets by default, and which it can't run."""

from pathlib import Path

from nemotrt.engines.backends.protocol.compute_capability import (
    FIRST_FP8,
    capability_number,
    has_fp8,
)
from nemotrt.engines.checkpoint.gguf.file import SUFFIX
from nemotrt.engines.checkpoint.quantized.scheme import Layout
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ConfigError, unknown_name
from nemotrt.profiles.hardware.gpu_profile import known_gpus, load_gpu
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.recipes.recipe import Recipe, load_recipe


def choose_recipe(recipe: str | None, gpu: str | None, kv_cache: str = "none") -> Recipe:
    """Return the recipe by name or file, or the GPU's default, checked against the GPU.

    Raises:
        ConfigError: a name is unknown, neither is given, or the GPU can't run the recipe.
    """
    if gpu is None:
        if recipe is None:
            raise ConfigError("give --recipe, or --gpu to take its default recipe.")
        return load_recipe(recipe)
    if gpu not in known_gpus():
        raise unknown_name("GPU", gpu, known_gpus())
    have = load_gpu(gpu).compute_capability
    if have is None:
        raise ConfigError(f"{gpu}'s profile has no compute capability; give --recipe alone.")
    default = "fp8-dynamic" if has_fp8(have) else "int8-wo"
    chosen = load_recipe(recipe or default)
    if capability_number(have) < capability_number(str(chosen.min_compute_capability)):
        is_fp8 = chosen.precision.arithmetic is NumberFormat.FP8
        why = f": no FP8 tensor cores before {FIRST_FP8}" if is_fp8 else ""
        other = chosen.alternative or default
        cure = f"Use --recipe {other}." if other != chosen.name else "No recipe here is for it."
        raise ConfigError(
            f"{chosen.name} needs compute capability {chosen.min_compute_capability}, "
            f"{gpu} has {have}{why}. {cure}"
        )
    if kv_cache == "fp8" and not has_fp8(have):
        raise ConfigError(
            f"--kv-cache fp8 needs compute capability {FIRST_FP8}, {gpu} has {have}. "
            "Use --kv-cache int8 or none."
        )
    return chosen


def wants_gguf(name: str | None, output: Path) -> bool:
    """Whether one GGUF file is to be written: --format says so, or the output's name alone."""
    return output.suffix == SUFFIX if name is None else name == Layout.GGUF


def choose_format(name: str | None, recipe: Recipe) -> CheckpointFormat:
    """Return the format by name, or the one that most engines read.

    Raises:
        ConfigError: the name is unknown.
    """
    if name is None:
        is_modelopts = recipe.precision not in (Precision.INT4_WO, Precision.INT8_DYNAMIC)
        return CheckpointFormat.MODELOPT if is_modelopts else CheckpointFormat.COMPRESSED_TENSORS
    if name not in list(CheckpointFormat):
        raise unknown_name("format", name, [*CheckpointFormat, Layout.GGUF.value])
    return CheckpointFormat(name)
