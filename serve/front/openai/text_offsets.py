"""Where each token's text begins in the text that a client gets, in characters."""

import codecs
from collections.abc import Sequence

from nemotrt.engines.text.tokenizer import Tokenizer


class TextOffsets:
    """Follows a text that is decoded from here on.

    A token that starts inside a character has that character's place, a special token none of its
    own: it stands where the next text begins.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, start: int, *, skip_special_tokens: bool = True
    ) -> None:
        """Begin a decoded text at place `start`; without a tokenizer there is no text."""
        self._tokenizer = tokenizer
        self._skips = skip_special_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = start  # of the characters that are whole
        self._is_first = True

    def add(self, token: int) -> int:
        """Return the place of the next token."""
        if self._tokenizer is None or (self._skips and self._tokenizer.is_special(token)):
            return self._end
        shown = self._tokenizer.shown_bytes(
            token, is_first=self._is_first, skip_special_tokens=self._skips
        )
        self._is_first = False
        return self.add_bytes(shown)

    def add_bytes(self, shown: bytes) -> int:
        """Return the place of the next token, given the bytes that it shows."""
        if not shown:
            return self._end
        self._end += len(self._decoder.decode(shown[:1]))
        # the first byte's character is the last one that is whole, or the one after it
        is_whole = not self._decoder.getstate()[0]
        place = self._end - 1 if is_whole else self._end
        self._end += len(self._decoder.decode(shown[1:]))
        return place


def prompt_offsets(prompt: str, ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """Return the places in a client's own text of the tokens that were made of it.

    A token that the text does not have (a beginning-of-sequence token) takes no room. Where a
    tokenizer normalizes, its tokens are not the text: then each counts by its own length.
    """
    text, done, is_first = prompt.encode("utf-8", "replace"), 0, True
    offsets = TextOffsets(tokenizer, 0)
    places = []
    for token in ids:
        if tokenizer.is_special(token):
            own = tokenizer.token_bytes(token) or b""
            own = own if text.startswith(own, done) else b""
        else:
            own = tokenizer.shown_bytes(token, is_first=is_first)
            is_first = False
        shown = text[done : done + len(own)]
        done += len(shown)
        places.append(offsets.add_bytes(shown))
    return places
