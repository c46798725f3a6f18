"""Guesses on the native engine: tokens, texts, log-probabilities are those without, to the bit."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nemotrt.engines.runtime.request import FinishReason, Update
from support.speculating import Speculating, answers


@pytest.fixture(scope="module", params=["tiny", "tiny-dense"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    found = Speculating(tmp_path_factory.mktemp("s"), request.param)
    yield found
    found.opened.engine.close()


def told(updates: list[Update]) -> list[Update]:
    """Return all but how much was kept, which hangs on who came before."""
    return [replace(update, cached_tokens=None) for update in updates]


def run_both(model: Speculating, seed: int, count: int) -> tuple[int, int]:
    """Run requests with guesses in a crowd, some cancelled, and without; return the guesses."""
    rng = random.Random(seed)
    names = [str(seed * 1000 + number) for number in range(count)]
    alone = answers(
        model.scheduler(guesses=False), [model.request(name, int(name)) for name in names]
    )
    budget = rng.choice([None, 6, 40])
    kept = {"keeps": rng.random() < 0.7, "num_kept": rng.choice([1, 3, 8, 100])}
    crowd = model.scheduler(guesses=True, max_num_tokens=budget, **kept)
    found: dict[str, list[Update]] = {name: [] for name in names}
    for name in names:
        crowd.submit(model.request(name, int(name)))
        for _ in range(rng.choice([0, 0, 1, 5])):
            for update in crowd.step():
                found[update.request_id].append(update)
        if rng.random() < 0.1:
            crowd.cancel(rng.choice(names[: len(found)]))
    while not crowd.is_idle:
        for update in crowd.step():
            found[update.request_id].append(update)
    for name, updates in found.items():
        if updates[-1].finish_reason is FinishReason.CANCELLED:
            assert told(updates[:-1]) == told(alone[name])[: len(updates) - 1]
        else:
            assert told(updates) == told(alone[name]), name
    assert crowd.speculation is not None
    assert not any(model.opened.engine.held)  # type: ignore[attr-defined]
    return crowd.speculation.drafted_tokens, crowd.speculation.accepted_tokens


@given(st.integers(0, 2**31))
@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_every_answer_is_that_without_guesses(model: Speculating, seed: int) -> None:
    """Seeds, penalties, stops, grammars, budgets, priorities, kept states, cancellations."""
    run_both(model, seed, 6)


@pytest.mark.slow
def test_ten_thousand_requests_differ_in_no_token(model: Speculating) -> None:
    counts = [run_both(model, seed, 50) for seed in range(100)]  # for each of two models
    drafted, accepted = (sum(column) for column in zip(*counts, strict=True))
    assert 5_000 < accepted < drafted
