"""What an output is, a folder or one GGUF file: its plan, and its writer."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from nemotrt.engines.checkpoint.hub.origin import RECORD_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.files.writing import check_file, check_target
from nemotrt.progress import byte_progress
from nemotrt.quantize.calibration.rounding import round_on_text
from nemotrt.quantize.conversion.layout import FilePart, Shard
from nemotrt.quantize.conversion.options import CalibrationText, QuantizeOptions
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection
from nemotrt.quantize.writing.gguf.writer import plan_gguf, quantize_to_gguf
from nemotrt.quantize.writing.writer import (
    QuantizeResult,
    check_apart,
    plan,
    quantize_checkpoint,
    work_bytes,
)

DEFAULT_TEXT = CalibrationText()


def check_output(target: Path, recipe: Recipe, options: QuantizeOptions) -> None:
    """Raise ConfigError if `target` is in the way, or can't be of these options.

    Call it before long work starts.
    """
    asked = {
        "--mixed": options.mixed,
        "--budget-gib": options.budget_gib,
        "--compensate": options.compensate,
    }
    for flag in (flag for flag, value in asked.items() if value):
        if recipe.precision is not Precision.INT4_WO:
            raise ConfigError(
                f"{flag} is for recipes of 4 bits as int4-wo has them; {recipe.name} has none."
            )
    if options.drawn and not options.compensate:
        raise ConfigError("--drawn is text for --compensate, which isn't asked for: give both.")
    (check_file if options.to_gguf else check_target)(target, force=options.force)


def check_replaced(target: Path, source: Path, options: QuantizeOptions) -> None:
    """Raise ConfigError if `target` is what is read, or a folder of anything else than ours."""
    check_apart(target, source, options)
    if not options.to_gguf:
        check_target(target, force=options.force, marks=[RECORD_FILE])


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
    text: CalibrationText = DEFAULT_TEXT,
    *,
    quiet: bool = True,
) -> QuantizeResult:
    """Write the output, rounded on `text` first if the options say so.

    Raises as `round_on_text`, `quantize_checkpoint` and `quantize_to_gguf`.
    """
    write = quantize_to_gguf if options.to_gguf else quantize_checkpoint
    with tempfile.TemporaryDirectory(prefix="nemotrt-") as folder:
        if options.compensate:
            options = round_on_text(source, recipe, options, text, Path(folder), quiet=quiet)
        total = work_bytes(source, recipe, options)
        with byte_progress(recipe.name, total, quiet=quiet) as progress:
            return write(source, target, recipe, options, progress=progress)
