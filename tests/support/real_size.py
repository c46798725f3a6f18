"""A checkpoint of the real vocabulary: 131,072 entries, a real tokenizer, tiny widths.

What grows with the vocabulary or with a prompt's length shows here, and nowhere with the shipped
tiny models. The tokenizer is Mistral-Nemo's (tekken_240718, in the mistral-common package), of the
same kind and size as Nemotron-Nano-9B-v2's, under this family's special tokens and template. It is
converted once into the user's cache, never kept in the repository.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from nemotrt.engines.tiny.models import TINY_MODELS
from support.peers import peer_python

VOCAB_SIZE = 131_072
SHIPPED_VOCAB_SIZE = 4096
LOGIT_DEVIATION = 2.5  # what language models have, so that a nucleus is as small as theirs
CONVERT = """
import sys
from pathlib import Path
import mistral_common
from transformers.integrations.mistral.tokenizer import MistralConverter
source = Path(mistral_common.__file__).parent / "data/tekken_240718.json"
MistralConverter(str(source)).converted().save(sys.argv[1])
"""


def tokenizer_file() -> Path:
    """Return the converted tokenizer.json in the cache; made first if it is not there."""
    python = peer_python("tekken")
    path = python.parents[1] / "nemotrt-tokenizer.json"
    if not path.is_file():
        partial = path.with_suffix(".partial")
        subprocess.run([python, "-c", CONVERT, partial], check=True, capture_output=True)
        raw = json.loads(partial.read_text())
        _rename_special(raw)
        partial.write_text(json.dumps(raw, ensure_ascii=False))
        partial.replace(path)
    return path


def write_checkpoint(folder: Path, kind: str = "tiny") -> Path:
    """Write the checkpoint: a shipped tiny model with random embeddings and head, 0.14 GB."""
    source = TINY_MODELS[kind]
    folder.mkdir(parents=True)
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)
    shutil.copy(tokenizer_file(), folder / "tokenizer.json")
    config = json.loads((source / "config.json").read_text()) | {"vocab_size": VOCAB_SIZE}
    (folder / "config.json").write_text(json.dumps(config))
    _write_weights(source, folder / "model.safetensors", int(config["hidden_size"]))
    return folder


def _rename_special(raw: dict[str, Any]) -> None:
    """Give the special tokens this family's names, as the shipped tokenizer has the first ones."""
    shipped = json.loads((TINY_MODELS["tiny"] / "tokenizer.json").read_text())["added_tokens"]
    names = {token["id"]: token["content"] for token in shipped}
    vocabulary = raw["model"]["vocab"]
    for token in raw["added_tokens"]:
        number, old = token["id"], token["content"]
        token["content"] = new = names.get(number, f"<SPECIAL_{number}>")
        if old in vocabulary:
            vocabulary[new] = vocabulary.pop(old)
    raw["post_processor"] = None


def _write_weights(source: Path, target: Path, hidden_size: int) -> None:
    """Copy the tensors, but for the two that have a row for each token."""
    random = torch.Generator().manual_seed(0)
    tensors = load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.shape[0] == SHIPPED_VOCAB_SIZE:
            deviation = LOGIT_DEVIATION / hidden_size**0.5 if "head" in name else 0.05
            values = torch.randn(VOCAB_SIZE, hidden_size, generator=random) * deviation
            tensors[name] = values.to(torch.bfloat16)
    save_file(tensors, target)
