"""Logits that are no numbers end their own request with an error, and never become a token."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.request import NOT_FINITE, ErrorCode, FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.guide import Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import Sampler, SamplingParams, is_finite
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from support.examples import up_to
from support.stand_in import StandInEngine

LARGEST = float(np.finfo(np.float32).max)
FAULTS = [math.nan, math.inf, -math.inf]
NO_PROMPT = np.array([0], np.int64)


class Spoiled(StandInEngine):
    """An engine whose slot 0 computes `bad` from its third step on, at some places."""

    def __init__(self, bad: float, places: list[int]) -> None:
        super().__init__(Limits(max_batch_size=2, max_seq_len=64, chunk_tokens=8), vocab_size=8)
        self.bad, self.places = bad, places
        self.num_steps = 0

    def step(self, feeds: list[Feed]) -> np.ndarray:
        self.num_steps += 1
        logits = np.tile(np.arange(8, dtype=np.float32), (len(feeds), 1))
        for row, feed in zip(logits, feeds, strict=True):
            if feed.slot == 0 and self.num_steps >= 3:
                row[self.places] = self.bad
        return logits


class Always:
    """A guide that says the same before every token."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def rule(self) -> Rule:
        return self._rule

    def push(self, token: int, text: str) -> None:
        pass


@pytest.mark.parametrize("bad", FAULTS)
@pytest.mark.parametrize("places", [[0], [7], [3], list(range(8))])
@pytest.mark.parametrize("rule", [None, Forced(1), Allowed(np.arange(8) == 2)])
@pytest.mark.parametrize("params", [{}, {"temperature": 1.0, "top_k": 2}, {"logprobs": 3}])
def test_the_request_ends_with_an_error_and_the_other_goes_on(bad, places, rule, params) -> None:
    scheduler = Scheduler(Spoiled(bad, places))
    guide = None if rule is None else Always(rule)
    many = SamplingParams(max_tokens=10, **params)
    scheduler.submit(Request("spoiled", (0,), many, guide))
    scheduler.submit(Request("good", (0,), SamplingParams(max_tokens=10)))
    updates: list[Update] = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    mine = [update for update in updates if update.request_id == "spoiled"]
    assert sum(len(update.tokens) for update in mine) == 2
    assert (mine[-1].finish_reason, mine[-1].error) == (FinishReason.ERROR, NOT_FINITE)
    assert mine[-1].error_code is ErrorCode.LOGITS_NOT_FINITE
    good = [update for update in updates if update.request_id == "good"]
    assert [token.id for update in good for token in update.tokens] == [7] * 10
    assert good[-1].finish_reason is FinishReason.LENGTH
    assert {scheduler.engine.allocate() for _ in range(2)} == {0, 1}  # both are free again


@settings(deadline=None)
@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=40),
    repeats=st.sampled_from([1, 1000]),
)
def test_is_finite_is_numpys(values: list[float], repeats: int) -> None:
    """The largest numbers, whose squares overflow, are finite all the same."""
    row = np.array(values * repeats, np.float32)
    assert is_finite(row) == bool(np.isfinite(row).all())


@settings(deadline=None, max_examples=up_to(300))
@given(
    logits=st.lists(st.floats(-LARGEST, LARGEST, width=32), min_size=1, max_size=12),
    temperature=st.sampled_from([0.0, 5e-324, 1e-300, 1e-30, 0.1, 1.0, 30.0, 1e300]),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([5e-324, 1e-9, 0.5, 0.95, 1 - 1e-16, 1.0]),
    repetition=st.sampled_from([5e-324, 1e-300, 1e-30, 0.5, 1.0, 2.0, 1e30, 1e300]),
    penalty=st.sampled_from([-2.0, 0.0, 2.0]),
    min_tokens=st.integers(0, 3),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_any_setting_draws_a_token_that_may_come(
    logits, temperature, top_k, top_p, repetition, penalty, min_tokens, seed, data
) -> None:
    """The oracle: the scores in float64 by hand; a drawn token's weight there is not zero."""
    size = len(logits)
    row = np.array(logits, np.float32)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    mask = None if not mask.any() else mask
    ends = tuple(data.draw(st.sets(st.integers(0, size - 1))))
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition,
        presence_penalty=penalty,
        frequency_penalty=penalty,
        min_tokens=min_tokens,
        seed=seed,
        logprobs=2,
    )
    sampler = Sampler(params, NO_PROMPT, ends)
    counts: dict[int, int] = {}
    for number in range(4):
        choice = sampler.choose(row, allowed=mask)
        may_come = set(range(size)) if mask is None else set(np.flatnonzero(mask).tolist())
        if number < min_tokens:
            may_come = may_come - set(ends) or may_come  # where nothing else may come, the end may
        scores = {token: score(token, row, params, counts) for token in may_come}
        best = max(scores.values())
        assert choice.token in may_come
        if temperature == 0:
            assert scores[choice.token] == best
        else:
            behind = min((best - scores[choice.token]) / temperature, 1e9)
            assert math.exp(-behind) > 0
        assert choice.logprob is not None and math.isfinite(choice.logprob)
        counts[choice.token] = counts.get(choice.token, 0) + 1


def score(token: int, row: np.ndarray, params: SamplingParams, counts: dict[int, int]) -> float:
    """A token's score after penalties; what leaves float64's range stays at 1e300."""
    value = float(row[token])
    if token in counts or token == 0:  # 0 is the prompt
        factor = params.repetition_penalty
        if params.repetition_penalty == 1:
            pass
        elif value > 0:
            value = value / factor if value < 1e300 * factor else 1e300
        else:
            value = max(value * factor, -1e300)
    if token in counts:
        value -= params.presence_penalty + params.frequency_penalty * counts[token]
    return value


def test_a_mask_without_a_token_is_an_error_not_token_0() -> None:
    scheduler = Scheduler(Spoiled(0.0, []))
    params = SamplingParams(max_tokens=5)
    scheduler.submit(Request("r", (0,), params, Always(Allowed(np.zeros(8, np.bool_)))))
    (update,) = scheduler.step()
    assert not update.tokens and update.finish_reason is FinishReason.ERROR
    assert "allows no token" in update.error


def test_the_end_comes_before_min_tokens_where_nothing_else_may() -> None:
    params = SamplingParams(max_tokens=5, min_tokens=4)
    scheduler = Scheduler(Spoiled(0.0, []), eos_ids=(5,))
    scheduler.submit(Request("r", (0,), params, Always(Allowed(np.arange(8) == 5))))
    (update,) = scheduler.step()
    assert [token.id for token in update.tokens] == [5]
    assert update.finish_reason is FinishReason.STOP
