"""A stream's tokens, by hand: what the server reports with each response, and at its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.profiles.load.exchange import Counting, Exchange, Phase
from nemotrt.profiles.load.targets.token_count import TokenCount


@pytest.mark.parametrize(
    ("reported", "total", "expected"),
    [
        ([1, 2, 3], 3, [1, 1, 1]),
        ([1, 2, 3], None, [1, 1, 1]),
        ([1, 2, 3], 4, [1, 1, 2]),  # the last token brought no text: half of a character
        ([2, 2, 2], 6, [2, 2, 2]),
        ([None, None], 5, [3, 2]),
        ([None, None], None, [1, 1]),
    ],
)
def test_every_token_is_counted(
    tokenizer: Tokenizer, reported: list[int | None], total: int | None, expected: list[int]
) -> None:
    exchange = Exchange(0, Phase.MEASURED, 8, sum(expected))
    count = TokenCount(exchange, tokenizer)
    for at, number in enumerate(reported):
        count.add(float(at), "text", number)
    count.total = total
    count.settle()
    assert exchange.arrival_tokens == expected


TOKENIZER = load_tokenizer(TINY_MODELS["tiny-dense"])
WORDS = st.sampled_from(
    [" a", " the", "hel", "lo ", "\n", "\u3042", "x", ", ", "1", "\N{GRINNING FACE}"]
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=5).map("".join), min_size=1, max_size=8))
def test_what_nobody_reports_the_tokenizer_counts(texts: list[str]) -> None:
    """The total is that of the whole text, wherever a response cut it."""
    total = len(TOKENIZER.encode("".join(texts), add_special_tokens=False))
    exchange = Exchange(0, Phase.MEASURED, 8, total)
    count = TokenCount(exchange, TOKENIZER)
    for at, text in enumerate(texts):
        count.add(float(at), text, None)
    count.settle()
    assert exchange.num_output_tokens == (total if exchange.osl != len(texts) else len(texts))
    assert min(exchange.arrival_tokens) >= 0
    expected = Counting.RESPONSES if total == len(texts) else Counting.TOKENIZER
    assert exchange.counting is expected


@pytest.mark.parametrize(
    ("osl", "found", "reason", "expected"),
    [
        (40, 39, "length", 40),  # a token that shows nothing, or two that the tokenizer joins
        (40, 42, "length", 40),
        (40, 37, "length", 37),
        (40, 39, "stop", 39),  # the model ended it: no reason to believe in 40
        (200, 191, "", 200),
    ],
)
def test_a_count_that_is_near_is_of_the_length_asked_for(
    osl: int, found: int, reason: str, expected: int
) -> None:
    """5 % or 2 tokens: a text is not always cut as the model wrote it."""
    exchange = Exchange(0, Phase.MEASURED, 8, osl)
    count = TokenCount(exchange, TOKENIZER)
    count.add(0.0, " a" * (found - 5), None)
    count.add(1.0, " a" * 5, None)
    exchange.finish_reason = reason
    count.settle()
    assert exchange.num_output_tokens == expected
