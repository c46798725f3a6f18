"""`--compensate`: the weights of 4 bits rounded on a text, before they are written."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nemotrt.engines.checkpoint.lora.merged import open_merged
from nemotrt.errors import ConfigError
from nemotrt.progress import count_progress
from nemotrt.quantize.calibration.compensate import compensate
from nemotrt.quantize.calibration.drawn import draw_windows
from nemotrt.quantize.calibration.texts import DEFAULT_TEXT, read_texts, token_windows
from nemotrt.quantize.conversion.options import CalibrationText, QuantizeOptions
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import select


def round_on_text(
    source: Path,
    recipe: Recipe,
    options: QuantizeOptions,
    text: CalibrationText,
    folder: Path,
    *,
    quiet: bool = True,
) -> QuantizeOptions:
    """Return the options with the codes of each weight of 4 bits, which lie in `folder`.

    Raises:
        ConfigError: the text is too short, or the model has experts.
        EnvironmentUnfitError: text is to be drawn, and the native engine can't run here.
    """
    tokens = token_windows(
        source, read_texts(text.text or DEFAULT_TEXT), text.sequence_tokens, text.sequences
    )
    if not len(tokens):
        raise ConfigError(
            f"the text is shorter than one sequence of {text.sequence_tokens} tokens; give more."
        )
    checkpoint = open_merged(source, options.merging.lora)
    if options.drawn:
        total = options.drawn * tokens.shape[1]
        with count_progress("drawing, tokens", total, quiet=quiet) as progress:
            drawn = draw_windows(checkpoint, tokens, options.drawn, progress)
        tokens = np.concatenate([tokens, drawn])
    selection = select(
        checkpoint.config, recipe, keep_feeders=options.keep_feeders, int8=options.int8
    )
    names = [name for name in selection.weights if name not in selection.int8]
    total = len(checkpoint.config.layers)
    with count_progress("rounding, blocks", total, quiet=quiet) as progress:
        found = compensate(checkpoint, names, recipe.group_size or 0, tokens, folder, progress)
    return replace(options, rounded=found)
