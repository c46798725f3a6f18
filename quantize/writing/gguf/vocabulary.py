"""A checkpoint's tokenizer as metadata; `engines/checkpoint/gguf/tokenizer.py` reads it.

Source: llama.cpp 11434, conversion/base.py (get_vocab_base) and gguf-py (SpecialVocab).
"""

from pathlib import Path
from typing import Any

import numpy as np

from nemotrt.engines.checkpoint.gguf.folder import NO_VOCABULARY
from nemotrt.engines.checkpoint.gguf.header import Value
from nemotrt.engines.checkpoint.gguf.tokenizer import (
    BYTE_LEVEL,
    CONTROL,
    IGNORING,
    NORMAL,
    PREFIX,
    SPLITS,
    TOKEN_KEYS,
    UNUSED,
    USER_DEFINED,
)
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.text.tokenizer_config import (
    DEFAULT_TEMPLATE,
    read_tokenizer_config,
    special_token,
    template_sources,
)
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.text_file import json_object_if_there, read_json_object

TEMPLATE = "tokenizer.chat_template"
CURE = "convert the checkpoint by llama.cpp's convert_hf_to_gguf.py, which knows more tokenizers"


def vocabulary(folder: Path, model: ModelConfig, architecture: str) -> dict[str, Value]:
    """Return tokens, merges, splitting, special tokens and chat templates.

    A folder without tokenizer.json gives a file that takes ids alone.

    Raises:
        ArtefactError: tokenizer.json is damaged, or has more tokens than the model.
        ConfigError: a GGUF file can't say how it splits texts.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        size = f"{architecture}.vocab_size"
        return {f"{PREFIX}.model": NO_VOCABULARY, size: model.vocab_size}
    raw = read_json_object(path)
    try:
        found = _tokens(raw, model.vocab_size, path)
        config = read_tokenizer_config(folder)
        found |= _special(raw, config, json_object_if_there(folder / "config.json"))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtefactError(f"{path} is damaged: {error!r}.") from None
    templates = template_sources(folder, config)
    for name, text in templates.items():
        found[TEMPLATE if name == DEFAULT_TEMPLATE else f"{TEMPLATE}.{name}"] = text
    if others := sorted(templates.keys() - {DEFAULT_TEMPLATE}):
        found[f"{TEMPLATE}s"] = others
    return found


def _tokens(raw: dict[str, Any], size: int, path: Path) -> dict[str, Value]:
    """Return the tokens by number, their types, the merges and the splitting."""
    split = splitting(raw, path)
    added = {token["id"]: token for token in raw["added_tokens"]}
    names = {number: name for name, number in raw["model"]["vocab"].items()}
    names |= {number: token["content"] for number, token in added.items()}
    if max(names) >= size:
        raise ArtefactError(f"{path} has token {max(names)}, the model {size} rows of embeddings.")
    tokens, kinds = [], np.full(size, UNUSED, np.int32)
    for number in range(size):
        tokens.append(names.get(number, f"[PAD{number}]"))
        if number in added:
            is_special = added[number]["special"] or tokens[-1].startswith("<|")
            kinds[number] = CONTROL if is_special else USER_DEFINED
        elif number in names:
            kinds[number] = NORMAL
    merges = [
        pair if isinstance(pair, str) else " ".join(part.replace(" ", "Ġ") for part in pair)
        for pair in raw["model"]["merges"]
    ]
    return {
        f"{PREFIX}.model": "gpt2",
        f"{PREFIX}.pre": split,
        f"{PREFIX}.tokens": tokens,
        f"{PREFIX}.token_type": kinds,
        f"{PREFIX}.merges": merges,
    }


def splitting(raw: dict[str, Any], path: Path) -> str:
    """Return llama.cpp's name of how a tokenizer.json splits texts before it merges.

    Raises:
        ConfigError: there is no name for it.
    """
    model, steps = raw["model"], raw.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _unknown(path, f"a model of type {model.get('type')!r}")
    every = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in every]
    pattern = every[0].get("pattern", {}).get("Regex") if kinds == ["Split", "ByteLevel"] else None
    if pattern is None:
        raise _unknown(path, f"pre_tokenizer {', '.join(map(str, kinds))}")
    name = next((name for name, known in SPLITS.items() if known == pattern), None)
    if name is None:
        raise _unknown(path, f"the expression {pattern!r}")
    normalizer = (raw.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise _unknown(path, f"a normalizer {normalizer}")
    if bool(model.get("ignore_merges")) != (name in IGNORING) and not _reaches_all(raw):
        raise _unknown(path, f"ignore_merges {model.get('ignore_merges')} with {name}'s expression")
    return name


def _reaches_all(raw: dict[str, Any]) -> bool:
    """Whether merges alone make every token, so that ignoring them changes nothing."""
    from tokenizers.models import BPE

    vocab, merges = raw["model"]["vocab"], raw["model"]["merges"]
    split = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in merges)
    pairs = [(str(first), str(second)) for first, second in split]
    model = BPE(vocab, pairs)
    return all(len(model.tokenize(name)) == 1 for name in set(vocab) - _added_names(raw))


def _added_names(raw: dict[str, Any]) -> set[str]:
    return {token["content"] for token in raw["added_tokens"]}


def _special(raw: dict[str, Any], config: dict[str, Any], hub: dict[str, Any]) -> dict[str, Value]:
    """Return the numbers of special tokens, and which of them a text gets around it."""
    numbers = {token["content"]: token["id"] for token in raw["added_tokens"]}
    found: dict[str, Value] = {}
    for name, key in TOKEN_KEYS.items():
        number = numbers.get(special_token(config, f"{name}_token") or "")
        number = hub.get(f"{name}_token_id") if number is None else number
        if isinstance(number, int) and number >= 0:
            found[f"{PREFIX}.{key}_token_id"] = number
    for name, is_added in _around(raw, config).items():
        found[f"{PREFIX}.add_{name}_token"] = is_added
    return found


def _around(raw: dict[str, Any], config: dict[str, Any]) -> dict[str, bool]:
    """Return whether a text gets the first and last token; the tokenizer goes before its config."""
    found = {
        name: config[f"add_{name}_token"]
        for name in TOKEN_KEYS
        if isinstance(config.get(f"add_{name}_token"), bool)
    }
    whole = raw.get("post_processor") or {}
    told: dict[str, bool] = {}
    for step in whole.get("processors", [whole]):
        if step.get("type") == BYTE_LEVEL:
            told = {"bos": False, "eos": False} | told
        elif step.get("type") == "TemplateProcessing" and len(single := step["single"]) > 1:
            for name, item in (("bos", single[0]), ("eos", single[-1])):
                if text := item.get("SpecialToken", {}).get("id"):
                    told[name] = text == special_token(config, f"{name}_token")
    return found | told


def _unknown(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path}: {what} has no name in a GGUF file; known are the expressions of "
        f"{', '.join(SPLITS)}. To use this model there, {CURE}."
    )
