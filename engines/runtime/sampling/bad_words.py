"""Keeps words out of a sequence: the token that would complete one is not allowed."""

from collections.abc import Callable, Sequence

import numpy as np

from nemotrt.engines.runtime.sampling.guide import (
    FREE,
    Allowed,
    Free,
    Guide,
    Rule,
    known_ahead,
)
from nemotrt.engines.runtime.sampling.token_bits import clear_bits

Words = tuple[tuple[int, ...], ...]


def word_tokens(words: Sequence[str], encode: Callable[[str], Sequence[int]]) -> Words:
    """Return the ids of each word, as a text begins with it and as it stands behind a space.

    A model can still spell a word by other tokens. Source: vLLM, vllm/sampling_params.py,
    `update_from_tokenizer`.
    """
    forms = (form for word in words for form in (word.lstrip(), f" {word.lstrip()}"))
    return tuple(dict.fromkeys(tuple(encode(form)) for form in forms))


class WithoutWords:
    """Another guide's rules, or freedom, without the tokens that complete a word.

    What another guide forces comes all the same, and a ban gives way where it would leave no token.
    """

    def __init__(self, words: Words, vocab_size: int, inner: Guide | None = None) -> None:
        """Start before the first token; each word has one token at least."""
        self._words = words
        self._inner = inner
        self._last: list[int] = []  # tokens, as many as the longest word has before its end
        self._num_last = max(map(len, words)) - 1
        self._all = Allowed(np.ones(vocab_size, np.bool_), is_free=True)

    @property
    def in_charge(self) -> Guide:
        """The guide that the next rule comes from."""
        return self if self._inner is None else getattr(self._inner, "in_charge", self._inner)

    def rule(self) -> Rule:
        """Return the other guide's rule without what would complete a word."""
        rule = FREE if self._inner is None else self._inner.rule()
        banned = [word[-1] for word in self._words if self._is_begun(word[:-1])]
        if not banned or not isinstance(rule, Free | Allowed):
            return rule
        base = rule if isinstance(rule, Allowed) else self._all
        bits = base.bits.copy()
        clear_bits(bits, banned)
        return Allowed.of_bits(bits, base.size, is_free=base.is_free) if bits.any() else rule

    def push(self, token: int, text: str) -> None:
        """Remember the token, and tell the other guide."""
        self._last = [*self._last, token][-self._num_last :] if self._num_last else []
        if self._inner is not None:
            self._inner.push(token, text)

    def ahead(self) -> list[int]:
        """Return what the other guide knows of the next tokens."""
        return known_ahead(self._inner)

    def _is_begun(self, beginning: tuple[int, ...]) -> bool:
        return not beginning or tuple(self._last[-len(beginning) :]) == beginning
