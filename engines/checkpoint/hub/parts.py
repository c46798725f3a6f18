"""Which files of a repository are a checkpoint's, and what a snapshot lacks of them."""

import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from nemotrt.engines.checkpoint.quantized.config import QUANT_CONFIG_FILE
from nemotrt.engines.text.tokenizer import SLOW_FILES, TOKENIZER_FILES
from nemotrt.engines.text.tokenizer_config import TEMPLATE_FOLDER

CONFIG_FILES = (QUANT_CONFIG_FILE, "config.json")  # in the order in which they are fetched
SLOW_TOKENIZER_FILES = (*SLOW_FILES, "merges.txt", "added_tokens.json")
TEMPLATE = re.compile(rf"{TEMPLATE_FOLDER}/[A-Za-z0-9_.-]+\.jinja")


class Part(Enum):
    """How much of a repository a command reads."""

    CONFIG = "config"
    TOKENIZER = "tokenizer"
    WEIGHTS = "weights"


def small_files(names: Iterable[str], part: Part) -> list[str]:
    """Return the names of the files that come before the weights, config.json last.

    So a snapshot with weights has everything before them, though a download was cut.
    """
    from nemotrt.engines.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE

    there = set(names)
    wanted: list[str] = []
    if part is not Part.CONFIG:
        wanted += [*TOKENIZER_FILES, *SLOW_TOKENIZER_FILES]
        wanted += sorted(name for name in there if TEMPLATE.fullmatch(name))
    if part is Part.WEIGHTS and SINGLE_FILE not in there:
        wanted.append(INDEX_FILE)
    return [name for name in (*wanted, *CONFIG_FILES) if name in there]


def lacking(snapshot: Path, part: Part) -> list[str]:
    """Return the names of what a snapshot lacks for a part, [] where it is whole."""
    found = [] if (snapshot / "config.json").is_file() else ["config.json"]
    tokenizers = ("tokenizer.json", *SLOW_FILES)
    if part is not Part.CONFIG and not any((snapshot / name).is_file() for name in tokenizers):
        found.append("tokenizer.json")
    return found + (lacking_weights(snapshot) if part is Part.WEIGHTS else [])


def lacking_weights(snapshot: Path) -> list[str]:
    """Return the names of the weights' files that a snapshot lacks.

    Raises:
        ArtefactError: its index is damaged.
    """
    from nemotrt.engines.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE, weight_map

    if (snapshot / SINGLE_FILE).is_file():
        return []
    if not (snapshot / INDEX_FILE).is_file():
        return [SINGLE_FILE]
    shards = sorted(set(weight_map(snapshot).values()))
    return [name for name in shards if not (snapshot / name).is_file()]
