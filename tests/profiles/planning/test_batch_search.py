"""The search for the fastest batch within a target, against trying every batch."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.planning.answers.search import LatencyTarget, best_under


@dataclass
class Plain:
    """A deployment whose latencies and rate are straight lines of its batch."""

    name: str
    most: int
    first_ms: float
    token_ms: float
    each_ms: float
    played: list[int] = field(default_factory=list)

    @property
    def formats(self) -> SimpleNamespace:
        return SimpleNamespace(precision=self.name)

    def max_batch_size(self) -> int:
        if not self.most:
            raise NoFeasiblePlanError("no room.")
        return self.most

    def tokens_per_s(self, users: int, batch: int, scenario: object) -> float:
        return 1e3 * batch / (self.token_ms + batch * self.each_ms)

    def steady_state(self, users: int, batch: int, scenario: object) -> SimpleNamespace:
        self.played.append(batch)
        tpot_ms = self.token_ms + 0.9 * batch * self.each_ms  # not quite the mean rate's
        return SimpleNamespace(ttft_ms=self.first_ms * batch, tpot_ms=tpot_ms)


PLAIN = st.builds(
    Plain,
    name=st.sampled_from(["bf16", "fp8", "int8-wo"]),
    most=st.integers(0, 300),
    first_ms=st.floats(1, 50),
    token_ms=st.floats(1, 20),
    each_ms=st.floats(0.01, 1),
)
LIMIT = st.none() | st.floats(0.5, 500)


@given(st.lists(PLAIN, min_size=1, max_size=4), LIMIT, LIMIT)
def test_it_finds_what_trying_all_finds(deployments: list[Plain], ttft, tpot) -> None:
    target = LatencyTarget(ttft_ms=ttft, tpot_ms=tpot)
    met = [
        (one.tokens_per_s(n, n, None), place, n)
        for place, one in enumerate(deployments)
        for n in range(1, one.most + 1)
        if target.is_met(one.first_ms * n, one.token_ms + 0.9 * n * one.each_ms)
    ]
    if not met:
        with pytest.raises(NoFeasiblePlanError) as error:
            best_under(deployments, target)  # type: ignore[arg-type]
        assert all(f"{one.name}: " in error.value.message for one in deployments)
        return
    found, batch = best_under(deployments, target)  # type: ignore[arg-type]
    assert found.tokens_per_s(batch, batch, None) == max(met)[0]  # type: ignore[arg-type]


def test_few_batches_are_played() -> None:
    """Each takes a tenth of a second for a large batch."""
    fast, slow = Plain("fp8", 4000, 1, 5, 0.01), Plain("bf16", 4000, 1, 9, 0.05)
    found, batch = best_under([slow, fast], LatencyTarget(tpot_ms=20))  # type: ignore[list-item]
    assert (found, batch) == (fast, 1666)
    assert len(fast.played) <= 8 and len(slow.played) <= 1
