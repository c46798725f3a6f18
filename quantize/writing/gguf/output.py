"""What an output is, a folder or one GGUF file: its plan, and its writer."""

from collections.abc import Sequence
from pathlib import Path

from nemotrt.errors import ConfigError
from nemotrt.files.writing import check_file, check_target
from nemotrt.quantize.conversion.layout import FilePart, Shard
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection
from nemotrt.quantize.writing.gguf.writer import plan_gguf, quantize_to_gguf
from nemotrt.quantize.writing.shard import Progress
from nemotrt.quantize.writing.writer import QuantizeResult, plan, quantize_checkpoint


def check_output(target: Path, options: QuantizeOptions) -> None:
    """Raise ConfigError if `target` is in the way, or can't be of these options.

    Call it before long work starts.
    """
    asked = {
        "--mixed": options.mixed,
        "--budget-gib": options.budget_gib,
        "--compensate": options.compensate,
    }
    for flag in (flag for flag, value in asked.items() if value and options.to_gguf):
        raise ConfigError(
            f"{flag} is not for GGUF files; use --format modelopt or compressed-tensors."
        )
    (check_file if options.to_gguf else check_target)(target, force=options.force)


def plan_output(
    source: Path, target: Path, recipe: Recipe, options: QuantizeOptions, *, is_calibrated: bool
) -> tuple[int, Selection]:
    """Return the bytes of the output, and what is quantized; as `plan` and `plan_gguf`."""
    shards: Sequence[Shard | FilePart]
    if options.to_gguf:
        shards, selection, _ = plan_gguf(source, target, recipe, options)
    else:
        shards, selection, _ = plan(source, recipe, options, is_calibrated=is_calibrated)
    sizes = {shard.target_name: shard.num_bytes for shard in shards}
    return sum(sizes.values()), selection


def write_output(
    source: Path,
    target: Path,
    recipe: Recipe,
    options: QuantizeOptions,
    *,
    progress: Progress = lambda num_bytes: None,
) -> QuantizeResult:
    """Write the output; as `quantize_checkpoint` and `quantize_to_gguf`."""
    write = quantize_to_gguf if options.to_gguf else quantize_checkpoint
    return write(source, target, recipe, options, progress=progress)
