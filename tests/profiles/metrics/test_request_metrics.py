"""Latencies of one request, by hand, where responses hold several tokens."""

import pytest

from nemotrt.profiles.runs.metrics.metric import NotComputableError
from nemotrt.profiles.runs.metrics.request_metrics import tpot_ms
from nemotrt.profiles.runs.record.result import RequestRecord


def request(arrivals_s: tuple[float, ...], arrival_tokens: tuple[int, ...]) -> RequestRecord:
    return RequestRecord(
        index=0,
        phase="measured",
        isl=8,
        osl=sum(arrival_tokens),
        due_s=0.0,
        sent_s=0.0,
        admitted_s=None,
        ended_s=arrivals_s[-1],
        arrivals_s=arrivals_s,
        arrival_tokens=arrival_tokens,
        finish_reason="length",
        error="",
    )


@pytest.mark.parametrize(
    ("arrivals_s", "arrival_tokens", "expected"),
    [
        ((1.0, 1.1, 1.2), (1, 1, 1), 100.0),  # 0.2 s for 2 tokens
        ((1.0, 1.4), (4, 4), 100.0),  # 0.4 s for the 4 tokens after the first 4, not for 7
        ((1.0, 1.3), (8, 3), 100.0),
        ((1.0, 1.1, 1.4), (1, 1, 3), 100.0),
    ],
)
def test_tpot_is_of_the_tokens_after_the_first_response(
    arrivals_s: tuple[float, ...], arrival_tokens: tuple[int, ...], expected: float
) -> None:
    assert tpot_ms(request(arrivals_s, arrival_tokens)) == pytest.approx(expected)


@pytest.mark.parametrize("arrival_tokens", [(1,), (5,), (5, 0)])
def test_no_token_after_the_first_response_has_no_tpot(arrival_tokens: tuple[int, ...]) -> None:
    arrivals_s = tuple(1.0 + i for i in range(len(arrival_tokens)))
    with pytest.raises(NotComputableError):
        tpot_ms(request(arrivals_s, arrival_tokens))
