"""A GGUF file's vocabulary as the tokenizer's files that it would have on the hub.

Source: llama.cpp's src/llama-vocab.cpp, whose comments quote each tokenizer.json's own expression.
"""

import json
from typing import Any

from nemotrt.engines.checkpoint.gguf.file import GgufFile
from nemotrt.errors import ArtefactError, ConfigError

PREFIX = "tokenizer.ggml"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # Source: gguf, TokenType
# The hub's name of a special token -> the key's. Source: gguf, Keys.Tokenizer, misspelling and all.
TOKEN_KEYS = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "sep": "seperator",
    "pad": "padding",
    "mask": "mask",
}
BYTE_LEVEL = "ByteLevel"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {  # tokenizer.ggml.pre -> expression; whole words come before merges in IGNORING
    "tekken": _TEKKEN,
    "qwen2": rf"{_WORDS}|\p{{N}}{_REST}",
    "llama-bpe": rf"{_WORDS}|\p{{N}}{{1,3}}{_REST}",
    "llama3": rf"{_WORDS}|\p{{N}}{{1,3}}{_REST}",
    "pixtral": rf"{_WORDS}|\p{{N}}{{1,3}}{_REST}",
}
IGNORING = ("tekken", "llama-bpe", "llama3", "pixtral")
OWN = "put its tokenizer.json beside the GGUF file"


def tokenizer_files(file: GgufFile) -> dict[str, str]:
    """Return file name -> text: tokenizer.json, its config, and a chat template where there is one.

    Raises:
        ArtefactError: the vocabulary is damaged.
        ConfigError: it is of a kind that is not read; the message has the cure.
    """
    found = {"tokenizer.json": _tokenizer_json(file)}
    tokens = file.get(f"{PREFIX}.tokens")
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in TOKEN_KEYS.items():
        number = file.metadata.get(f"{PREFIX}.{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            config[f"{name}_token"] = tokens[number]
    if isinstance(add_bos := file.metadata.get(f"{PREFIX}.add_bos_token"), bool):
        config["add_bos_token"] = add_bos
    found["tokenizer_config.json"] = json.dumps(config, ensure_ascii=False)
    template = file.metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        found["chat_template.jinja"] = template
    return found


def _tokenizer_json(file: GgufFile) -> str:
    own = file.metadata.get("tokenizer.huggingface.json")
    if isinstance(own, str):
        return own
    kind, split = file.get(f"{PREFIX}.model"), file.metadata.get(f"{PREFIX}.pre")
    if kind != "gpt2" or split not in SPLITS:
        raise ConfigError(
            f"{file.path}: a vocabulary of kind {kind!r} that splits texts as {split!r} is not "
            f"read; known: gpt2 with {', '.join(SPLITS)}. To use this model, {OWN}."
        )
    tokens, kinds, merges = (file.get(f"{PREFIX}.{n}") for n in ("tokens", "token_type", "merges"))
    if len(tokens) != len(kinds) or not all(isinstance(merge, str) for merge in merges):
        raise ArtefactError(f"{file.path}: the vocabulary's tokens, types and merges disagree.")
    pieces = [merge.split(" ") for merge in merges]
    if any(len(pair) != 2 for pair in pieces):
        raise ArtefactError(f"{file.path}: a merge of the vocabulary is no pair.")
    added = [
        {"id": number, "content": token, "special": kind == CONTROL}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, (token, kind) in enumerate(zip(tokens, map(int, kinds), strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    vocabulary = {t: i for i, t in enumerate(tokens) if int(kinds[i]) != UNUSED}
    byte_level = {"type": BYTE_LEVEL, "add_prefix_space": False, "trim_offsets": True}
    isolated = {"pattern": {"Regex": SPLITS[split]}, "behavior": "Isolated", "invert": False}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": split in IGNORING,
        "vocab": vocabulary,
        "merges": pieces,
    }
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "NFC"} if split == "qwen2" else None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", **isolated},
                    {**byte_level, "use_regex": False},
                ],
            },
            "post_processor": _post_processor(file, tokens, byte_level),
            "decoder": {**byte_level, "use_regex": True},
            "model": model,
        },
        ensure_ascii=False,
    )


def _post_processor(
    file: GgufFile, tokens: list[str], byte_level: dict[str, Any]
) -> dict[str, Any]:
    """Return what puts the first token of a text before it, where the model wants one."""
    number = file.metadata.get(f"{PREFIX}.bos_token_id")
    # Where the file says nothing, llama.cpp goes by the splitting, the same that ignore merges.
    is_wanted = file.metadata.get(f"{PREFIX}.add_bos_token", file.get(f"{PREFIX}.pre") in IGNORING)
    if is_wanted is not True or not isinstance(number, int):
        return {**byte_level, "use_regex": False}
    if not 0 <= number < len(tokens):
        raise ArtefactError(f"{file.path}: {PREFIX}.bos_token_id {number} is no token.")
    first = {"SpecialToken": {"id": tokens[number], "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            tokens[number]: {"id": tokens[number], "ids": [number], "tokens": [tokens[number]]}
        },
    }
