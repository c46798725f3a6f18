"""Calibration and evaluation text: JSON Lines, plain text, or the set that ships with nemotrt."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.tokenizer import load_tokenizer
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.forward import windows

DEFAULT_TEXT = Path(__file__).parent / "calibration_text.jsonl"


def read_texts(path: Path) -> list[str]:
    """Return the documents of a file: one a line with key `text` in .jsonl, else the whole file.

    Raises:
        ArtefactError: the file can't be read.
        ConfigError: a line is not an object with a `text`.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} can't be read: {error}.") from error
    if path.suffix != ".jsonl":
        return [content]
    texts = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            texts.append(str(json.loads(line)["text"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError(f'{path}, line {number}: expected {{"text": ...}}.') from None
    return texts


def token_windows(
    checkpoint: Path, texts: list[str], num_tokens: int, max_sequences: int
) -> npt.NDArray[np.int64]:
    """Return [sequences, num_tokens] of the texts' tokens, one text after the other.

    Raises:
        ConfigError: the checkpoint has no tokenizer.
    """
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer is None:
        raise ConfigError(f"{checkpoint} has no tokenizer, so text can't become tokens.")
    tokens = [token for text in texts for token in tokenizer.encode(text)]
    return windows(tokens, num_tokens)[:max_sequences]
