"""Whether the files beside a checkpoint's weights can be read: tokenizer, templates, settings."""

from pathlib import Path

from nemotrt.engines.text.chat.template import load_chat_template
from nemotrt.engines.text.tokenizer import TOKENIZER_FILES, check_tokenizer
from nemotrt.files.text_file import json_object_if_there

TOKENIZER = "tokenizer.json"


def check_texts(folder: Path) -> None:
    """Raise unless what `folder` has of a tokenizer, chat templates and settings can be read.

    What it lacks is no fault: an engine of token ids needs none of it.

    Raises:
        ArtefactError: a file is damaged, or the tokenizer has ids beyond the model's vocabulary.
        ConfigError: an end-of-sequence id is beyond it, or a setting means nothing.
    """
    _check_beside(folder)
    check_tokenizer(folder)


def check_carried(folder: Path) -> None:
    """Raise where a file that goes to a quantized copy was cut: no JSON, no template.

    Whether the tokenizer fits the model is for whoever opens it. Raises as `check_texts`.
    """
    _check_beside(folder)
    json_object_if_there(folder / TOKENIZER)


def _check_beside(folder: Path) -> None:
    """Check the files beside tokenizer.json, which its library reads."""
    for name in TOKENIZER_FILES:
        if name.endswith(".json") and name != TOKENIZER:
            json_object_if_there(folder / name)
    load_chat_template(folder)
