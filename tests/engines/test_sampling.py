"""Sampling against distributions one can compute by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from nemotrt.engines.runtime.sampling.draws import CompiledDraws, NumpyDraws, Turn
from nemotrt.engines.runtime.sampling.guide import Allowed
from nemotrt.engines.runtime.sampling.params import Sampler, SamplingParams, likeliest, log_softmax
from nemotrt.errors import ConfigError

PROMPT = np.array([1, 2], np.int64)
LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))


def draws(params: SamplingParams, logits: np.ndarray = LOGITS, count: int = 4000) -> np.ndarray:
    """Frequencies of `count` draws, each from a sampler of its own."""
    counts = np.zeros(logits.size)
    for seed in range(count):
        seeded = SamplingParams(
            temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, seed=seed
        )
        counts[Sampler(seeded, PROMPT, ()).choose(logits).token] += 1
    return counts / count


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(temperature=1.0), [0.5, 0.25, 0.15, 0.1]),
        (SamplingParams(temperature=1.0, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (SamplingParams(temperature=1.0, top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (SamplingParams(temperature=1.0, top_p=0.76), [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        (SamplingParams(temperature=1.0, top_p=0.01), [1, 0, 0, 0]),
        (
            SamplingParams(temperature=0.5),
            [0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345],
        ),
    ],
)
def test_frequencies_follow_the_distribution(params: SamplingParams, expected: list[float]) -> None:
    found = draws(params)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert (found[np.array(expected) == 0] == 0).all()


@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=30),
    temperature=st.sampled_from([0.0, 1.0, 5.0]),
    min_p=st.sampled_from([0.0, 0.3, 1.0]),
    bias=st.sampled_from([100.0, 1e30, 1e300]),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_no_bias_lets_a_token_through_a_mask(
    logits: list[float],
    temperature: float,
    min_p: float,
    bias: float,
    seed: int,
    data: st.DataObject,
) -> None:
    allowed = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits)))
    )
    allowed[data.draw(st.integers(0, len(logits) - 1))] = True
    biased = tuple((token, bias) for token in np.flatnonzero(~allowed).tolist())
    banned = data.draw(st.sampled_from(np.flatnonzero(allowed).tolist()))
    params = SamplingParams(
        temperature=temperature, min_p=min_p, seed=seed, logit_bias=(*biased, (banned, -1e30))
    )
    for draws in (NumpyDraws(), CompiledDraws(len(logits), 1)):
        memory = draws.open(params, (1,), ())
        rows = np.array([logits], np.float32)
        [choice] = draws.choose(rows, [Turn(0, memory, Allowed(allowed))])
        assert choice is not None and allowed[choice.token]
        assert choice.token != banned or allowed.sum() == 1


@given(
    seed=st.integers(0, 2**31),
    temperature=st.floats(0.2, 3),
    top_k=st.integers(1, 40),
    top_p=st.floats(0.05, 1),
)
def test_the_kept_set_is_transformers(
    seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    """Every draw is a token that transformers' warpers, in the same order, keep."""
    logits = np.random.default_rng(seed).normal(size=40).astype(np.float32) * 3
    scores = torch.from_numpy(logits)[None]
    for warper in (TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k)):
        scores = warper(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    kept = set(torch.isfinite(scores[0]).nonzero().flatten().tolist())
    params = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    found = {
        Sampler(SamplingParams(seed=n, **params), PROMPT, ()).choose(logits).token
        for n in range(30)
    }
    assert found <= kept


def test_repetition_penalty_is_transformers() -> None:
    logits = np.random.default_rng(1).normal(size=20).astype(np.float32)
    sampler = Sampler(SamplingParams(repetition_penalty=1.3), PROMPT, ())
    seen = PROMPT.tolist()
    for _ in range(5):
        ids = torch.tensor([seen])
        expected = RepetitionPenaltyLogitsProcessor(1.3)(ids, torch.from_numpy(logits)[None])
        token = sampler.choose(logits).token
        assert token == int(expected.argmax())
        seen.append(token)


def test_presence_and_frequency_penalties() -> None:
    logits = np.array([2.0, 1.7, 1.5], np.float32)
    sampler = Sampler(SamplingParams(frequency_penalty=0.2, presence_penalty=0.2), PROMPT, ())
    # 0 falls to 1.6 then 1 to 1.3, 2 to 1.1, 0 (1.6 again highest) to 1.4, ...
    assert [sampler.choose(logits).token for _ in range(5)] == [0, 1, 0, 2, 0]


def test_a_seed_repeats_and_seeds_differ() -> None:
    logits = np.zeros(1000, np.float32)

    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed), PROMPT, ())
        return [sampler.choose(logits).token for _ in range(8)]

    assert tokens(5) == tokens(5)
    assert tokens(5) != tokens(6)
    assert tokens(None) != tokens(None)


def test_logprobs_are_of_the_models_distribution() -> None:
    """Temperature and penalties change the choice, not the reported log-probability."""
    params = SamplingParams(temperature=0.3, seed=1, logprobs=3, repetition_penalty=2.0)
    choice = Sampler(params, PROMPT, ()).choose(LOGITS)
    assert choice.logprob == pytest.approx(LOGITS[choice.token], abs=1e-6)
    assert [token for token, _ in choice.top_logprobs] == [0, 1, 2]
    assert sum(math.exp(p) for _, p in choice.top_logprobs) == pytest.approx(0.9, abs=1e-6)
    assert Sampler(SamplingParams(), PROMPT, ()).choose(LOGITS).logprob is None


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=50), st.integers(0, 60))
def test_likeliest_is_a_stable_sort(values: list[float], count: int) -> None:
    scores = np.array(values, np.float32)
    expected = sorted(range(len(values)), key=lambda i: (-scores[i], i))[:count]
    assert likeliest(scores, count).tolist() == expected


@given(st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=50))
def test_log_softmax_is_torchs(values: list[float]) -> None:
    expected = torch.log_softmax(torch.tensor(values, dtype=torch.float64), 0).numpy()
    np.testing.assert_allclose(log_softmax(np.array(values, np.float32)), expected, atol=1e-9)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_tokens": -1},
        {"prompt_logprobs": 101},
        {"min_tokens": 129},
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"seed": -1},
        {"repetition_penalty": 0},
        {"presence_penalty": 3},
        {"frequency_penalty": math.nan},
        {"logprobs": 101},
        {"stop": ("",)},
    ],
)
def test_values_out_of_range_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SamplingParams(**bad)  # type: ignore[arg-type]
