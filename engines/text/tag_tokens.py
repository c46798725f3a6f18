"""The ways in which a tokenizer's tokens write the tags of a reasoning trace."""

from collections.abc import Iterable
from dataclasses import dataclass

from nemotrt.engines.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TagTokens:
    """Ids with their texts.

    `tag` is the opening tag; `opening` are the tokens of which it is made, and those that end it
    with newlines; `newlines` are the tokens of newlines alone; `ends` end a sequence.
    """

    vocab_size: int
    tag: str = ""
    opening: tuple[tuple[int, str], ...] = ()
    newlines: tuple[tuple[int, str], ...] = ()
    ends: tuple[int, ...] = ()

    def opening_after(self, written: str) -> list[int]:
        """Return the tokens that go on with an opening tag of which `written` stands there."""
        return [token for token, text in self.opening if self._is_opening(written + text)]

    def newlines_up_to(self, count: int) -> list[int]:
        """Return the tokens of `count` newlines at most."""
        return [token for token, text in self.newlines if len(text) <= count]

    def _is_opening(self, text: str) -> bool:
        """Whether a text begins the opening tag, or is one with newlines behind it."""
        return self.tag.startswith(text) or text.rstrip("\n") == self.tag


NO_TAGS = TagTokens(0)  # allows nothing beside the answer


def tag_tokens(tokenizer: Tokenizer, vocab_size: int, ends: Iterable[int] = ()) -> TagTokens:
    """Return a tokenizer's; a tag that is one token is written by that token alone.

    `ends` are ids that end a sequence, beside the tokenizer's.
    """
    tag, gap = tokenizer.chat.think.open, tokenizer.chat.gap
    gaps = [gap[:size] for size in range(1, len(gap) + 1)]
    whole = tokenizer.token_id(tag)
    parts = [whole] if whole is not None else _parts(tokenizer, tag, gaps)
    newlines = [tokens[0] for text in gaps if len(tokens := _ids(tokenizer, text)) == 1]
    return TagTokens(
        vocab_size,
        tag,
        tuple((token, text) for token in parts if (text := _text(tokenizer, token))),
        tuple((token, text) for token in newlines if not (text := _text(tokenizer, token)).strip()),
        tuple(end for end in {*tokenizer.eos_ids, *ends} if 0 <= end < vocab_size),
    )


def _parts(tokenizer: Tokenizer, tag: str, gaps: list[str]) -> list[int]:
    """Return the tokens of which an opening tag can be made, piece by piece."""
    size = len(tag)
    pieces = {tag[a:b] for a in range(size) for b in range(a + 1, size + 1)}
    found = {token for piece in pieces if (token := tokenizer.token_id(piece)) is not None}
    for newlines in gaps:
        found |= set(_ids(tokenizer, tag + newlines))
    return sorted(found)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _text(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.decode([token], skip_special_tokens=False)
