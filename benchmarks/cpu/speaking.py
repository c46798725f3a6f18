"""Models of the benchmark that speak: with the shipped tokenizer and chat template, as GGUF too.

A random model would draw ids that are no text, and a server sends nothing until there is text. So
the head's rows of all other tokens are zero, and a greedy token is always a printable piece.
"""

import shutil
from pathlib import Path

import llama_build
from models import checkpoint

from nemotrt.engines.checkpoint.stored.safetensors_file import read_header
from nemotrt.engines.text.tokenizer import TOKENIZER_FILES, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS

HEAD = "lm_head.weight"


def speaking_checkpoint(name: str, folder: Path) -> Path:
    """Return the checkpoint of a model that speaks; it is written to `folder` if need be."""
    if name == "tiny":
        return TINY_MODELS["tiny"]
    target = folder / name
    if not (target / "tokenizer.json").exists():
        checkpoint(name, folder)
        for file in TOKENIZER_FILES:
            if (TINY_MODELS["tiny"] / file).exists():
                shutil.copy(TINY_MODELS["tiny"] / file, target)
        _silence(target)
    return target


def speaking_gguf(source: Path, kind: str, target: Path) -> Path:
    """Return the checkpoint as GGUF with its vocabulary and chat template."""
    return llama_build.gguf(source, kind, target, has_vocabulary=True)


def _silence(folder: Path) -> None:
    """Zero the head's rows of tokens that are no printable text."""
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    file = folder / "model.safetensors"
    entry = read_header(file)[0][HEAD]
    row_bytes = entry.num_bytes // entry.shape[0]
    with file.open("r+b") as data:
        for token in range(entry.shape[0]):
            text = tokenizer.decode([token]) if token < tokenizer.vocab_size else ""
            if not (text.strip() and text.isascii() and text.isprintable()):
                data.seek(entry.offset + token * row_bytes)
                data.write(bytes(row_bytes))
