"""Makes the calibration folder that a command asks for, unless it is there."""

from pathlib import Path

from nemotrt.engines.checkpoint import open_checkpoint
from nemotrt.quantize.calibration import calibrate, save_calibration
from nemotrt.quantize.progress import count_progress
from nemotrt.quantize.texts import DEFAULT_TEXT, read_texts, token_windows


def ensure_calibration(
    source: Path,
    folder: Path,
    text: Path | None,
    num_sequences: int,
    num_tokens: int,
    *,
    quiet: bool = False,
) -> None:
    """Write the calibration of checkpoint `source` to `folder`, if there is no such folder.

    Args:
        source: the 16 bit checkpoint.
        folder: where the calibration is, or goes.
        text: JSON Lines or plain text; None takes the set that ships with nemotrt.
        num_sequences: at most so many windows of the text.
        num_tokens: tokens of a window.
        quiet: draw no progress bar.

    Raises:
        ConfigError: the text is too short, or the checkpoint has no tokenizer.
    """
    if folder.exists():
        return
    tokens = token_windows(source, read_texts(text or DEFAULT_TEXT), num_tokens, num_sequences)
    checkpoint = open_checkpoint(source)
    total = len(checkpoint.config.layers)
    with count_progress("calibrating, blocks", total, quiet=quiet) as progress:
        save_calibration(calibrate(checkpoint, tokens, progress), folder)
