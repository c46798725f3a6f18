"""Makes the token stream that both models are trained on."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from corpus import LANGUAGES, Document
from dialogues import Render, section_dialogue, sections, small_talk, tool_dialogue
from extract import Block

MAX_PACKAGE_BYTES = 4_000_000  # of one package in one language: keeps any one from ruling
TOKENIZER_BYTES = 10_000_000  # of each language, to train the tokenizer on
CHAT_SHARE = 0.12  # of all text
TOOL_SHARE = 0.05
SMALL_TALK_SHARE = 0.003
BOS_BEFORE_CHAT = 0.25  # servers differ: some put <s> before a chat prompt, most do not
SEED = 0


def read_corpus(path: Path) -> list[Document]:
    """Returns the documents of a file that `corpus.write_corpus` wrote, shuffled."""
    documents = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            values = json.loads(line)
            values["blocks"] = [Block(**block) for block in values["blocks"]]
            documents.append(Document(**values))
    random.Random(SEED).shuffle(documents)
    return documents


def tokenizer_texts(documents: list[Document]) -> list[str]:
    """Returns the first documents of each language, until `TOKENIZER_BYTES` are reached."""
    totals: Counter[str] = Counter()
    texts = []
    for document in documents:
        if totals[document.language] < TOKENIZER_BYTES:
            texts.append(document.text())
            totals[document.language] += len(texts[-1].encode())
    return texts


def balance(documents: list[Document]) -> list[Document]:
    """Returns documents with no package over its limit and as many bytes in each language."""
    by_package: Counter[tuple[str, str]] = Counter()
    by_language: Counter[str] = Counter()
    kept = []
    for document in documents:
        key, size = (document.language, document.package), len(document.text().encode())
        if by_package[key] + size <= MAX_PACKAGE_BYTES:
            by_package[key] += size
            by_language[document.language] += size
            kept.append(document)
    limit = min(by_language[language] for language in LANGUAGES)
    totals: Counter[str] = Counter()
    balanced = []
    for document in kept:
        if totals[document.language] < limit:
            totals[document.language] += len(document.text().encode())
            balanced.append(document)
    return balanced


def renderer(folder: Path) -> Render:
    """Returns the chat template of the tokenizer in `folder` as a function."""
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def render(messages: Any, tools: Any = None) -> str:
        text = tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=True
        )
        return str(text)

    return render


def training_texts(documents: list[Document], render: Render) -> list[str]:
    """Returns plain documents (opened by `<s>`) and dialogues in random order."""
    rng = random.Random(SEED)
    texts = ["<s>" + document.text() for document in documents]
    num_plain = sum(len(text) for text in texts)
    plain_share = 1 - CHAT_SHARE - TOOL_SHARE - SMALL_TALK_SHARE
    pairs = [(d, title, text) for d in documents for title, text in sections(d)]
    rng.shuffle(pairs)

    def add(text: str) -> int:
        texts.append(("<s>" if rng.random() < BOS_BEFORE_CHAT else "") + text)
        return len(text)

    budget = num_plain / plain_share
    chat = tool = talk = 0
    for document, title, text in pairs:
        if chat >= budget * CHAT_SHARE:
            break
        chat += add(section_dialogue(rng, render, document, title, text))
    while tool < budget * TOOL_SHARE:
        tool += add(tool_dialogue(rng, render))
    while talk < budget * SMALL_TALK_SHARE:
        talk += add(small_talk(rng, render))
    rng.shuffle(texts)
    return texts


def write_tokens(cache: Path, folder: Path) -> int:
    """Writes train.npy and dev.npy below `cache`; returns the number of training tokens."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    documents = balance(read_corpus(cache / "train.jsonl"))
    texts = training_texts(documents, renderer(folder))
    dev = ["<s>" + document.text() for document in read_corpus(cache / "dev.jsonl")]
    for name, part in (("train", texts), ("dev", dev)):
        encoded = tokenizer.encode_batch(part, add_special_tokens=False)
        ids = np.concatenate([np.array(e.ids, dtype=np.uint16) for e in encoded])
        np.save(cache / f"{name}.npy", ids)
    return int(np.load(cache / "train.npy").size)
