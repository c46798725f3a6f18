"""The ways in which a tokenizer's tokens write the tags of a reasoning trace."""

from collections.abc import Iterable
from dataclasses import dataclass

from nemotrt.engines.text.reasoning import THINK_OPEN
from nemotrt.engines.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TagTokens:
    """Ids with their texts.

    `opening` are the tokens of which an opening tag is made, and those that end it with newlines;
    `newlines` are the tokens of newlines alone; `ends` are those that end a sequence.
    """

    vocab_size: int
    opening: tuple[tuple[int, str], ...] = ()
    newlines: tuple[tuple[int, str], ...] = ()
    ends: tuple[int, ...] = ()

    def opening_after(self, written: str) -> list[int]:
        """Return the tokens that go on with an opening tag of which `written` stands there."""
        return [token for token, text in self.opening if _is_opening(written + text)]

    def newlines_up_to(self, count: int) -> list[int]:
        """Return the tokens of `count` newlines at most."""
        return [token for token, text in self.newlines if len(text) <= count]


NO_TAGS = TagTokens(0)  # allows nothing beside the answer


def tag_tokens(tokenizer: Tokenizer, vocab_size: int, ends: Iterable[int] = ()) -> TagTokens:
    """Return a tokenizer's; a tag that is one token is written by that token alone.

    `ends` are ids that end a sequence, beside the tokenizer's.
    """
    whole = tokenizer.token_id(THINK_OPEN)
    parts = [whole] if whole is not None else _parts(tokenizer)
    newlines = [tokens[0] for text in ("\n", "\n\n") if len(tokens := _ids(tokenizer, text)) == 1]
    return TagTokens(
        vocab_size,
        tuple((token, text) for token in parts if (text := _text(tokenizer, token))),
        tuple((token, text) for token in newlines if not (text := _text(tokenizer, token)).strip()),
        tuple(end for end in {*tokenizer.eos_ids, *ends} if 0 <= end < vocab_size),
    )


def _parts(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of which an opening tag can be made, piece by piece."""
    size = len(THINK_OPEN)
    pieces = {THINK_OPEN[a:b] for a in range(size) for b in range(a + 1, size + 1)}
    found = {token for piece in pieces if (token := tokenizer.token_id(piece)) is not None}
    for newlines in ("\n", "\n\n"):
        found |= set(_ids(tokenizer, THINK_OPEN + newlines))
    return sorted(found)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _text(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.decode([token], skip_special_tokens=False)


def _is_opening(text: str) -> bool:
    """Whether a text begins an opening tag, or is one with newlines behind it."""
    return THINK_OPEN.startswith(text) or text.rstrip("\n") == THINK_OPEN
