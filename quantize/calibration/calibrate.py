"""Runs the 16 bit model over sample text and observes what enters each linear and the KV cache."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.lora.merged import open_merged
from nemotrt.engines.checkpoint.lora.merging import Merging
from nemotrt.engines.model.tensor_names import blocks, of_any_expert
from nemotrt.errors import ConfigError
from nemotrt.progress import count_progress
from nemotrt.quantize.calibration.calibration import (
    Calibration,
    identity,
    load_calibration,
    save_calibration,
    tokens_digest,
)
from nemotrt.quantize.calibration.forward import SequenceEmitter, embed, run_block
from nemotrt.quantize.calibration.observe import Observation
from nemotrt.quantize.calibration.texts import DEFAULT_TEXT, read_texts, token_windows
from nemotrt.quantize.conversion.plan import check_plain


class CalibrationEmitter(SequenceEmitter):
    """Taps the input of every linear and what goes into the KV cache."""

    def linear(self, x: str, weight: str) -> str:
        """Tap the input, then multiply."""
        self.tap(weight, x, self.checkpoint[weight].shape[1])
        return super().linear(x, weight)

    def cached(self, what: str, heads: str) -> str:
        """Tap keys or values."""
        flat = self.graph.op("Transpose", heads, perm=[0, 2, 1, 3])
        flat = self.graph.op("Reshape", flat, self.graph.ints(0, 0, self.config.kv_size))
        self.tap(what, flat, self.config.kv_size)
        return heads


def calibrate(
    checkpoint: Checkpoint,
    tokens: npt.NDArray[np.int64],
    progress: Callable[[int], None] = lambda num_blocks: None,
) -> Calibration:
    """Return what `tokens` [sequences, tokens] give in the 16 bit model; no torch is needed.

    Memory is that of the largest block, and 4 bytes x hidden size a token.

    Raises:
        ConfigError: there are no tokens, or the checkpoint is quantized.
        ArtefactError: the model overflows on this text.
    """
    if tokens.size == 0:
        raise ConfigError("the calibration text is shorter than one sequence; give more text.")
    if checkpoint.quant.precision:
        raise ConfigError(f"{checkpoint.path} is quantized; calibrate the 16 bit checkpoint.")
    observations: dict[str, Observation] = {}
    hidden = embed(checkpoint, tokens)
    for block in blocks(checkpoint.config):
        for taps in run_block(checkpoint, block, hidden, CalibrationEmitter):
            for name, values in taps.items():
                key = of_any_expert(name)
                seen = observations.setdefault(key, Observation.empty(values.shape[-1]))
                seen.add(values, name.removesuffix(".weight"))
        progress(1)
    digest = tokens_digest(tokens)
    return Calibration(identity(checkpoint), len(tokens), tokens.size, digest, observations)


def ensure_calibration(
    source: Path,
    folder: Path,
    text: Path | None,
    num_sequences: int,
    num_tokens: int,
    *,
    mergings: Sequence[Merging] = (),
    is_asked: bool = False,
    quiet: bool = False,
) -> None:
    """Write the calibration of checkpoint `source` to `folder`, if there is no such folder.

    Args:
        source: the 16 bit checkpoint.
        folder: where the calibration is, or goes.
        text: JSON Lines or plain text; None takes the set that ships with nemotrt.
        num_sequences: at most so many windows of the text.
        num_tokens: tokens of a window.
        mergings: adapters that are merged into it.
        is_asked: whether the caller chose the text or its size: an older folder must have it.
        quiet: draw no progress bar.

    Raises:
        ConfigError: the text is too short, the checkpoint is quantized or has no tokenizer, or
            the folder is a calibration on other text.
    """
    if folder.exists() and not is_asked:
        return
    check_plain(source)
    tokens = token_windows(source, read_texts(text or DEFAULT_TEXT), num_tokens, num_sequences)
    if not len(tokens):
        raise ConfigError(
            f"the calibration text {text or DEFAULT_TEXT} is shorter than one sequence of "
            f"{num_tokens} tokens; give more text."
        )
    if folder.exists():
        if load_calibration(folder, source, mergings).tokens_digest != tokens_digest(tokens):
            raise ConfigError(
                f"{folder} was calibrated on other text than --text, --sequences and "
                "--sequence-tokens give; leave them away to use it, or give a new folder."
            )
        return
    checkpoint = open_merged(source, mergings)
    total = len(checkpoint.config.layers)
    with count_progress("calibrating, blocks", total, quiet=quiet) as progress:
        save_calibration(calibrate(checkpoint, tokens, progress), folder)
