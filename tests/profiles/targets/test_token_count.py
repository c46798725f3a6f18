"""A stream's tokens, by hand: what the server reports with each response, and at its end."""

import pytest

from nemotrt.profiles.load.exchange import Exchange, Phase
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
    reported: list[int | None], total: int | None, expected: list[int]
) -> None:
    exchange = Exchange(0, Phase.MEASURED, 8, sum(expected))
    count = TokenCount(exchange)
    for at, number in enumerate(reported):
        count.add(float(at), "text", number)
    count.total = total
    count.settle()
    assert exchange.arrival_tokens == expected
