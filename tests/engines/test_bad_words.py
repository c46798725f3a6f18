"""Words that may not come: through the scheduler and every draw, beside other guides."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.runtime.request import FinishReason, Request
from nemotrt.engines.runtime.sampling.bad_words import WithoutWords, word_tokens
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from support.flat_engine import FlatEngine

TOKENIZER = load_tokenizer(TINY_MODELS["tiny-dense"])
VOCAB = 8
WORDS = st.lists(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5
)


class Says:
    """A guide with one rule."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.pushed: list[int] = []

    def rule(self) -> Rule:
        return self._rule

    def push(self, token: int, text: str) -> None:
        self.pushed.append(token)


@given(WORDS, st.lists(st.integers(0, VOCAB - 1), max_size=30))
def test_the_tokens_that_would_complete_a_word_are_those_that_are_left_out(words, tokens) -> None:
    """The oracle: a list that ends with the word."""
    inner = Says(FREE)
    guide, said = WithoutWords(tuple(words), VOCAB, inner), []
    for token in [*tokens, 0]:
        completes = {
            t
            for t in range(VOCAB)
            if any(tuple([*said, t][-len(word) :]) == word for word in words)
        }
        rule = guide.rule()
        if completes and len(completes) < VOCAB:
            assert isinstance(rule, Allowed) and rule.is_free
            assert set(np.flatnonzero(~rule.mask)) == completes
        else:
            assert rule is FREE  # nothing is banned, or a ban gives way
        said.append(token)
        guide.push(token, "")
    assert inner.pushed == said


@given(WORDS, st.sets(st.integers(0, VOCAB - 1), min_size=1))
def test_a_mask_loses_them_unless_none_would_be_left(words, allowed) -> None:
    mask = np.isin(np.arange(VOCAB), list(allowed))
    rule = WithoutWords(tuple(words), VOCAB, Says(Allowed(mask))).rule()
    assert isinstance(rule, Allowed) and not rule.is_free
    left = allowed - {word[0] for word in words if len(word) == 1}
    assert set(np.flatnonzero(rule.mask)) == (left or allowed)
    forced = Forced(words[0][0])
    assert WithoutWords(tuple(words), VOCAB, Says(forced)).rule() is forced


@pytest.mark.parametrize("ignore_eos", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_answer_has_a_banned_pair_of_tokens(ignore_eos, seed) -> None:
    assert TOKENIZER is not None
    usual = [tuple(TOKENIZER.encode(word, add_special_tokens=False)) for word in ("a", "b")]
    letters = [ids[-1] for ids in usual]
    banned = tuple(itertools.product(letters, repeat=2))
    eos = TOKENIZER.eos_ids[0]
    bias = tuple((token, 60.0) for token in (*letters, *((eos,) if ignore_eos else ())))
    scheduler = Scheduler(FlatEngine(TOKENIZER.vocab_size), TOKENIZER)
    fields: dict[str, Any] = {"max_tokens": 40, "temperature": 1.0, "seed": seed}
    params = SamplingParams(**fields, logit_bias=bias, ignore_eos=ignore_eos)
    vocab_size = scheduler.engine.vocab_size
    scheduler.submit(Request("r", (5, 6), params, WithoutWords(banned, vocab_size)))
    updates = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    tokens = [token.id for update in updates for token in update.tokens]
    assert set(letters) & set(tokens)
    assert not set(itertools.pairwise(tokens)) & set(banned)
    if ignore_eos:
        assert eos in tokens[:-1] and len(tokens) == 40
        assert updates[-1].finish_reason is FinishReason.LENGTH


def test_a_word_is_banned_at_a_texts_beginning_and_behind_a_space() -> None:
    assert TOKENIZER is not None

    def encode(text: str) -> list[int]:
        return TOKENIZER.encode(text, add_special_tokens=False)  # type: ignore[union-attr]

    assert word_tokens([" engine"], encode) == (
        tuple(encode("engine")),
        tuple(encode(" engine")),
    )
