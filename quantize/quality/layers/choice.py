"""Which units of a model get 8 bits beside the others' 4, within a budget of bytes."""

from dataclasses import replace
from pathlib import Path

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.lora.merged import open_merged
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.errors import ConfigError
from nemotrt.progress import count_progress
from nemotrt.quantize.calibration.texts import (
    DEFAULT_TEXT,
    read_texts,
    spread_windows,
    token_windows,
)
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.quality.layers.divergence import Unit, measure, units
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import select
from nemotrt.quantize.writing.gguf.output import plan_output

GIB = 2**30
DEFAULT_BITS = 5.0  # a weight, in the mean over the linears
SEQUENCES, SEQUENCE_TOKENS = 4, 128  # of the calibration text: of positive terms, a mean of 508
# Of the divergence in 4 bits that is left in 8: it grows with the square of the error, which is a
# tenth. Source: measured, tests/quantize/quality/test_layers.py holds it below this.
LEFT_IN_8_BITS = 0.02


def choose_int8(
    source: Path, target: Path, recipe: Recipe, options: QuantizeOptions, *, quiet: bool = True
) -> tuple[QuantizeOptions, list[Unit]]:
    """Return the options with the weights of 8 bits, and all units, the most divergent first.

    `target` is the output, a folder or a GGUF file.

    Raises:
        ConfigError: the budget is below what 4 bits alone take, or a GGUF file, where the experts
            of a block have one type, is to hold a mix of them.
    """
    checkpoint = open_merged(source, options.merging.lora)
    if options.to_gguf and checkpoint.config.moe is not None:
        raise ConfigError(
            "--mixed and --budget-gib: a GGUF file has one type for the experts of a block. "
            "Use --format modelopt or compressed-tensors."
        )
    selection = select(checkpoint.config, recipe, keep_feeders=options.keep_feeders)
    every, group_size = units(checkpoint.config, selection.weights), recipe.group_size or 0
    room = _room_bytes(source, target, recipe, options, every)
    texts = read_texts(DEFAULT_TEXT)
    tokens = spread_windows(token_windows(source, texts, SEQUENCE_TOKENS, 10**9), SEQUENCES)
    total = len(checkpoint.config.layers) + 1
    with count_progress("divergence of each linear, blocks", total, quiet=quiet) as progress:
        measured = measure(checkpoint, every, group_size, tokens, progress)
    ranked = sorted(measured, key=lambda unit: -unit.divergence)
    sizes = {
        unit.weights: extra_bytes(source, unit, group_size, to_gguf=options.to_gguf)
        for unit in measured
    }
    chosen = within(measured, sizes, room)
    weights = tuple(name for unit in chosen for name in unit.weights)
    return replace(options, int8=weights), ranked


def within(every: list[Unit], sizes: dict[tuple[str, ...], int], room: int) -> list[Unit]:
    """Return the units that win most for their bytes, as long as they fit into `room` bytes."""
    chosen = []
    gain = {unit.weights: unit.divergence * (1 - LEFT_IN_8_BITS) for unit in every}
    for unit in sorted(every, key=lambda unit: -gain[unit.weights] / sizes[unit.weights]):
        if sizes[unit.weights] <= room:
            chosen.append(unit)
            room -= sizes[unit.weights]
    return chosen


def extra_bytes(source: Path, unit: Unit, group_size: int, *, to_gguf: bool = False) -> int:
    """Return what 8 bits of a unit take beyond 4: codes, and scales per row, not per group.

    Q8_0 of a GGUF file has as many scales as Q4_0.
    """
    shapes, total = expected_shapes(open_checkpoint(source).config), 0
    for name in unit.weights:
        rows, columns = shapes[name]
        scales = 0 if to_gguf else 4 * rows - 2 * rows * (columns // group_size)
        total += rows * columns // 2 + scales
    return total


def _room_bytes(
    source: Path, target: Path, recipe: Recipe, options: QuantizeOptions, every: list[Unit]
) -> int:
    """Return the bytes of the budget beyond those of 4 bits alone."""
    bare = replace(options, int8=())
    least, _ = plan_output(source, target, recipe, bare, is_calibrated=False)
    if options.budget_gib is not None:
        room = int(options.budget_gib * GIB) - least
        if room < 0:
            raise ConfigError(
                f"--budget-gib {options.budget_gib:g}: 4 bits alone take {least / GIB:.3f} GiB."
            )
        return room
    shapes = expected_shapes(open_checkpoint(source).config)
    names = [name for unit in every for name in unit.weights]
    weights = sum(shapes[name][0] * shapes[name][1] for name in names)
    own_bits = 4 + 16 / (recipe.group_size or 1)
    return int(weights * (DEFAULT_BITS - own_bits) / 8)
