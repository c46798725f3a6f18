"""Markdown as prose: its sentences, and how easily they are read."""

import re
from collections.abc import Iterator

VOWELS = re.compile(r"[aeiouy]+")
END = re.compile(r"(?<=[.!?])[)\"'*]*\s+(?=[^a-z])|(?<=:)\s*\n\s*\n")
ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|vs|etc)\.")


def paragraphs(text: str) -> Iterator[str]:
    """Yield each paragraph and list item as plain words; blocks, tables, headings are none."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    kept: list[str] = []
    for line in [*text.splitlines(), ""]:
        is_item = re.match(r"\s*([-*]|\d+\.) ", line)
        is_other = re.match(r"(\||#|!\[|    \S|:::|---)", line) and not (
            kept and line[:4] == "    "
        )
        if (is_item or is_other or not line.strip()) and kept:
            yield plain(" ".join(kept))
            kept = []
        if line.strip() and not is_other:
            kept.append(re.sub(r"^\s*([-*]|\d+\.) ", "", line).strip())


def plain(text: str) -> str:
    """Return the text without marks: a link is its words, code is one word."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "Code", text)
    return re.sub(r"[*_]{1,2}(\S.*?\S|\S)[*_]{1,2}", r"\1", text)


def sentences(text: str) -> list[str]:
    """Return the sentences of Markdown."""
    return [
        one.strip()
        for paragraph in paragraphs(text)
        for one in END.split(ABBREVIATIONS.sub(r"\1", paragraph))
        if one and re.search(r"[A-Za-z]", one)
    ]


def words(sentence: str) -> list[str]:
    """Return a sentence's words."""
    return re.findall(r"[A-Za-z0-9][\w'.-]*", sentence)


def syllables(word: str) -> int:
    """Return about how many syllables a word has; a number or a name with digits counts as one."""
    letters = word.lower().strip(".-'")
    if not letters.isascii() or re.search(r"\d", letters):
        return 1
    groups = sum(len(VOWELS.findall(part)) for part in re.split(r"[-.']", letters))
    if letters.endswith("e") and not letters.endswith(("le", "ee")):
        groups -= 1
    if letters.endswith("ed") and not letters.endswith(("ted", "ded")):
        groups -= 1
    return max(groups, 1)


def reading_ease(text: str) -> float:
    """Return Flesch's reading ease of Markdown's prose.

    Source: Flesch, A new readability yardstick, Journal of Applied Psychology 32 (1948).
    """
    found = sentences(text)
    all_words = [word for sentence in found for word in words(sentence)]
    per_sentence = len(all_words) / len(found)
    return 206.835 - 1.015 * per_sentence - 84.6 * sum(map(syllables, all_words)) / len(all_words)
