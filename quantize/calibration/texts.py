"""Calibration and evaluation text: JSON Lines, plain text, or the set that ships with nemotrt."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.json_lines import json_lines
from nemotrt.quantize.calibration.forward import windows

DEFAULT_TEXT = Path(__file__).parent / "calibration_text.jsonl"


def read_texts(path: Path) -> list[str]:
    """Return the documents of a file: one per line with key `text` in .jsonl, else the whole file.

    Raises:
        ArtefactError: the file can't be read.
        ConfigError: a line is not an object whose `text` is a string.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} can't be read: {error}.") from error
    if path.suffix.lower() != ".jsonl":
        return [text]
    try:
        return [_text(number, line) for number, line in json_lines(content)]
    except ValueError as error:
        raise ConfigError(f'{path}, {error}: expected {{"text": "..."}}.') from None


def _text(number: int, line: dict[str, Any]) -> str:
    """Return the text of one line; half of a surrogate pair is no text."""
    text = line.get("text")
    if not isinstance(text, str):
        raise ValueError(f"line {number} has text {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"line {number} has a text that is no Unicode ({error.reason})") from None
    return text


def token_windows(
    checkpoint: Path, texts: list[str], num_tokens: int, max_sequences: int
) -> npt.NDArray[np.int64]:
    """Return [sequences, num_tokens] of the texts' tokens, one text after the other.

    Raises:
        ConfigError: the checkpoint has no tokenizer.
    """
    return text_windows(checkpoint, texts, num_tokens)[0][:max_sequences]


def text_windows(
    checkpoint: Path, texts: list[str], num_tokens: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Return all whole windows [sequences, num_tokens] of the texts' tokens, and their tokens.

    Raises:
        ConfigError: the checkpoint has no tokenizer.
    """
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer is None:
        raise ConfigError(f"{checkpoint} has no tokenizer, so text can't become tokens.")
    tokens = [token for text in texts for token in tokenizer.encode(text)]
    return windows(tokens, num_tokens), len(tokens)


def spread_windows(rows: npt.NDArray[np.int64], most: int | None) -> npt.NDArray[np.int64]:
    """Return at most `most` of the windows [sequences, tokens], spread over all of them."""
    if most is None or len(rows) <= most:
        return rows
    return rows[np.arange(most) * len(rows) // most]


def nested_windows(rows: npt.NDArray[np.int64], most: int | None) -> npt.NDArray[np.int64]:
    """Return at most `most` of the windows, spread, so that fewer of them are among more.

    They are in the text's order. Gaps between them are equal up to a factor of two.
    """
    if most is None or len(rows) <= most:
        return rows
    return rows[sorted(nested_order(len(rows))[:most])]


def nested_order(count: int) -> list[int]:
    """Return 0 to count - 1, each far from all before it: by its bits, read backwards."""
    width = count.bit_length()
    return sorted(range(count), key=lambda number: int(f"{number:0{width}b}"[::-1], 2))
