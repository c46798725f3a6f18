"""Prompts of an exact number of tokens, made from real text, no two of them alike."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.engines.tiny.models import FOLDER
from nemotrt.errors import ConfigError
from nemotrt.profiles.load.workload import Language

# Excerpts of the Debian manuals, English and Japanese; their sources are beside the files.
TEXTS = {
    Language.ENGLISH: FOLDER / "heldout" / "en.txt",
    Language.JAPANESE: FOLDER / "heldout" / "ja.txt",
}
FILLER = " a"
MAX_TRIMMED_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation up to the turn that is asked for, as OpenAI's messages and tools.

    `num_tokens` are those of its texts; the chat template adds its own.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as ids, and as text or messages where the target takes those."""

    ids: tuple[int, ...]
    text: str = ""
    chat: Chat | None = None

    @property
    def num_tokens(self) -> int:
        """How many tokens it has, as far as this side knows."""
        return self.chat.num_tokens if self.chat else len(self.ids)


class PromptMaker:
    """Makes prompt `index` of a seeded series; the same seed gives the same prompts."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        language: Language,
        seed: int,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Use `tokenizer` to count; `facts` say where it is from."""
        self.tokenizer = tokenizer
        self.facts = dict(facts or {})
        self._language = language
        self._seed = seed

    def ids(self, index: int, isl: int) -> Prompt:
        """Return a prompt of exactly `isl` ids."""
        return Prompt(tuple(self._encoded(index, isl)[:isl]))

    def text(self, index: int | str, isl: int) -> Prompt:
        """Return a text that the tokenizer turns into exactly `isl` ids, special tokens included.

        A text of a conversation has a name in place of the index.

        Raises:
            ConfigError: no such text was found.
        """
        ids = self._encoded(index, isl)
        for end in range(isl, max(isl - MAX_TRIMMED_TOKENS, 0), -1):
            text = self.tokenizer.decode(ids[:end]).rstrip("\ufffd")
            missing = isl - len(self.tokenizer.encode(text))
            if missing < 0:
                continue
            text += FILLER * missing
            found = self.tokenizer.encode(text)
            if len(found) == isl:
                return Prompt(tuple(found), text)
        raise ConfigError(f"this tokenizer gives no text of exactly {isl} tokens; change --isl.")

    def _encoded(self, index: int | str, isl: int) -> list[int]:
        """Return at least `isl` ids of prompt `index`."""
        pieces = self._pieces(index)
        text = ""
        while True:
            # a token is seldom longer than four characters; so few rounds are needed
            wanted = len(text) + 4 * isl + 64
            while len(text) < wanted:
                text += next(pieces)
            ids = self.tokenizer.encode(text)
            if len(ids) >= isl:
                return ids

    def _pieces(self, index: int | str) -> Iterator[str]:
        """Yield a tag of the prompt's own, then paragraphs in its own order, without end."""
        chance = random.Random(f"{self._seed}:{index}")
        yield f"{chance.getrandbits(48):012x}: "  # no server has this prefix in its cache
        language = self._language
        if language is Language.MIXED:
            place = index if isinstance(index, int) else chance.getrandbits(1)
            language = (Language.ENGLISH, Language.JAPANESE)[place % 2]
        paragraphs = list(_paragraphs(language))
        while True:
            chance.shuffle(paragraphs)
            for paragraph in paragraphs:
                yield paragraph + "\n"


def random_prompt(vocab_size: int, index: int, isl: int, seed: int) -> Prompt:
    """Return `isl` random ids, for an engine without a tokenizer."""
    chance = random.Random(f"{seed}:{index}")
    return Prompt(tuple(chance.randrange(vocab_size) for _ in range(isl)))


@cache
def _paragraphs(language: Language) -> tuple[str, ...]:
    """Return the text's paragraphs."""
    text = TEXTS[language].read_text(encoding="utf-8")
    return tuple(part for part in text.split("\n") if len(part) > 40)
