"""Downloads Debian's documentation packages and makes a clean corpus with a held-out split."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path

from extract import Block, read_document
from sources import SOURCES, Source

LANGUAGES = ("en", "ja")
HELD_OUT_BYTES = 110_000  # per language, in the shipped sample
HELD_OUT_ONE_IN = 40  # documents, chosen by a hash of their path
MIN_DOCUMENT_CHARS = 200
MAX_CODE_CHARS = 800
MAX_REPEATS = 12  # a short paragraph that occurs more often is boilerplate
WINDOW_CHARS = 24  # near copies are found by shared windows of this many characters
MAX_SHARED = 0.5  # a held-out paragraph that shares more of its windows with training is dropped

JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
JAPANESE_GAP = re.compile(r"(?<=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])[ \n]+"
                          r"(?=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])")  # fmt: skip


@dataclass(slots=True)
class Document:
    """One document's blocks; `key` names it alike in both languages."""

    package: str
    language: str
    path: str
    key: str
    may_hold_out: bool
    blocks: list[Block]

    def text(self) -> str:
        """Returns the document as plain text, a blank line between blocks."""
        return "\n\n".join(block.text for block in self.blocks) + "\n"


def download(cache: Path) -> dict[str, str]:
    """Fetches and unpacks every source package below `cache`; returns package -> version."""
    debs, root = cache / "debs", cache / "root"
    debs.mkdir(parents=True, exist_ok=True)
    versions = {}
    for package in sorted({source.package for source in SOURCES}):
        found = sorted(debs.glob(f"{package}_*.deb"))
        if not found:
            subprocess.run(["apt-get", "download", "-q", package], cwd=debs, check=True)
            found = sorted(debs.glob(f"{package}_*.deb"))
        target = root / package
        if not target.exists():
            subprocess.run(["dpkg-deb", "-x", str(found[-1]), str(target)], check=True)
        versions[package] = found[-1].name.split("_")[1].replace("%3a", ":")
    return versions


def _document_key(path: str) -> str:
    parts = [part for part in Path(path).parts if not re.fullmatch(r"en|ja|C|en-US|ja-JP", part)]
    name = re.sub(r"\.(en|ja)\.html$|\.html$|\.page$|\.gz$", "", parts[-1])
    return "/".join([*parts[-2:-1], name])


def _clean(block: Block, language: str) -> Block | None:
    text = block.text.replace("\u00a0", " ").replace("\u200b", "").replace("\u00ad", "")
    if block.kind == "code":
        return Block("code", text) if len(text) <= MAX_CODE_CHARS else None
    if language == "ja":
        num_japanese = len(JAPANESE.findall(text))
        if num_japanese < 0.15 * len(text) and len(text) > 40:
            return None  # not translated
        text = JAPANESE_GAP.sub("", text)
    return Block(block.kind, text)


def _read(job: tuple[Source, Path, Path]) -> Document | None:
    source, path, root = job
    relative = str(path.relative_to(root))
    if re.search(r"genindex|/index-|searchindex|/whatsnew/changelog|_sources", relative):
        return None
    cleaned = (_clean(block, source.language) for block in read_document(path))
    blocks = [block for block in cleaned if block]
    if source.language == "ja" and not any(JAPANESE.search(block.text) for block in blocks):
        return None
    key = _document_key(relative)
    return Document(source.package, source.language, relative, key, source.may_hold_out, blocks)


def read_documents(cache: Path) -> list[Document]:
    """Returns the documents of every unpacked package, in a fixed order."""
    jobs = []
    for source in SOURCES:
        root = cache / "root" / source.package
        paths = {path for pattern in source.patterns for path in root.glob(pattern)}
        foreign = r"\.(ca|cs|de|es|fr|hu|it|ja|nl|pt|zh|ru|pl|ko|sv|da|fi|lt|ro|sk|tr|uk|el)\.html$"
        keep = [p for p in paths if source.language == "ja" or not re.search(foreign, p.name)]
        jobs += [(source, path, root) for path in sorted(keep) if not path.is_symlink()]
    with Pool() as pool:
        documents = pool.map(_read, jobs, chunksize=16)
    return [document for document in documents if document is not None]


def _normal(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def drop_repeats(documents: Iterable[Document]) -> list[Document]:
    """Drops boilerplate and every later copy of a paragraph, then what is left too short."""
    documents = list(documents)
    counts = Counter(_normal(b.text) for d in documents for b in d.blocks)
    seen: set[str] = set()
    kept = []
    for document in documents:
        blocks = []
        for block in document.blocks:
            normal = _normal(block.text)
            if not normal or (block.kind != "heading" and counts[normal] > MAX_REPEATS):
                continue
            if len(normal) >= 30 and normal in seen:
                continue
            seen.add(normal)
            blocks.append(block)
        document.blocks = blocks
        if sum(len(b.text) for b in blocks if b.kind != "heading") >= MIN_DOCUMENT_CHARS:
            kept.append(document)
    return kept


def _windows(text: str) -> list[str]:
    return [text[i : i + WINDOW_CHARS] for i in range(max(1, len(text) - WINDOW_CHARS + 1))]


def drop_near_copies(held_out: list[Document], train: list[Document]) -> None:
    """Removes from `held_out`, in place, the paragraphs that training holds or nearly holds."""
    wanted = {w for d in held_out for b in d.blocks for w in _windows(_normal(b.text))}
    found: set[str] = set()
    short = {_normal(block.text) for document in train for block in document.blocks}
    for document in train:
        text = _normal(document.text())
        found.update(w for w in _windows(text) if w in wanted)
    for document in held_out:
        blocks = []
        for block in document.blocks:
            windows = _windows(_normal(block.text))
            shared = sum(window in found for window in windows) / len(windows)
            if shared <= MAX_SHARED and _normal(block.text) not in short:
                blocks.append(block)
        document.blocks = blocks


def split(documents: list[Document]) -> tuple[list[Document], list[Document]]:
    """Returns (training, held-out) documents; a document and its translation go the same way."""
    train: list[Document] = []
    held_out: list[Document] = []
    for document in documents:
        digest = hashlib.sha256(document.key.encode()).digest()
        chosen = document.may_hold_out and int.from_bytes(digest[:4]) % HELD_OUT_ONE_IN == 0
        (held_out if chosen else train).append(document)
    return train, held_out


def choose_sample(held_out: list[Document], language: str) -> list[Document]:
    """Returns held-out documents of `language`, package by package in turn, to the byte limit."""
    queues: dict[str, list[Document]] = defaultdict(list)
    for document in sorted(held_out, key=lambda d: hashlib.sha256(d.key.encode()).digest()):
        num_chars = sum(len(block.text) for block in document.blocks)
        if document.language == language and num_chars >= MIN_DOCUMENT_CHARS:
            queues[document.package].append(document)
    chosen: list[Document] = []
    num_bytes = 0
    while any(queues.values()) and num_bytes < HELD_OUT_BYTES:
        for package in sorted(queues):
            if queues[package] and num_bytes < HELD_OUT_BYTES:
                document = queues[package].pop(0)
                if len(document.text().encode()) < HELD_OUT_BYTES // 4:
                    chosen.append(document)
                    num_bytes += len(document.text().encode())
    return chosen


def write_corpus(cache: Path, held_out_folder: Path) -> None:
    """Writes train.jsonl, dev.jsonl and corpus.json below `cache`, and the held-out texts."""
    versions = download(cache)
    documents = [
        d
        for language in LANGUAGES
        for d in drop_repeats(d for d in read_documents(cache) if d.language == language)
    ]
    train, held_out = split(documents)
    drop_near_copies(held_out, train)
    held_out_folder.mkdir(parents=True, exist_ok=True)
    sample = {language: choose_sample(held_out, language) for language in LANGUAGES}
    for language, chosen in sample.items():
        text = "\n".join(document.text() for document in chosen)
        (held_out_folder / f"{language}.txt").write_text(text, encoding="utf-8")
    rows = [
        f"{d.language}\t{d.package}\t{versions[d.package]}\t{d.path}\n"
        for chosen in sample.values()
        for d in chosen
    ]
    (held_out_folder / "sources.tsv").write_text(
        "language\tpackage\tversion\tpath\n" + "".join(rows)
    )
    sampled = {(d.language, d.path) for chosen in sample.values() for d in chosen}
    dev = [d for d in held_out if (d.language, d.path) not in sampled]
    for name, part in (("train", train), ("dev", dev)):
        with (cache / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(d), ensure_ascii=False) + "\n" for d in part)
    statistics = {
        "versions": versions,
        "train_bytes": {f"{d[0]}:{d[1]}": n for d, n in sorted(_bytes_by_package(train).items())},
    }
    (cache / "corpus.json").write_text(json.dumps(statistics, indent=1, ensure_ascii=False))


def _bytes_by_package(documents: list[Document]) -> Counter[tuple[str, str]]:
    totals: Counter[tuple[str, str]] = Counter()
    for document in documents:
        totals[document.language, document.package] += len(document.text().encode())
    return totals
