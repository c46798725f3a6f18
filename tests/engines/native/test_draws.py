"""The compiled sampler against its definition in NumPy, and the properties that both promise."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.build.check.kernels.sampler_cases import CARD, REAL, SETTINGS, likely
from nemotrt.engines.backends.native.library import draw
from nemotrt.engines.backends.native.library.draw import DrawEngine
from nemotrt.engines.backends.native.library.library import available_isas
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, NumpyDraws, Turn, open_draws
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SampledToken, SamplingParams, uniform
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from support.examples import up_to
from support.flat_engine import FlatEngine
from support.sampler_cases import excess, probabilities, settings_of_every_size

ISAS = available_isas()


def tokens_of(
    draws: Any, params: SamplingParams, rows: np.ndarray, rules: Sequence[Rule] = (FREE,)
) -> list[SampledToken | None]:
    """One sequence's choices, row after row."""
    prompt, ends = (tuple(i % rows.shape[1] for i in ids) for ids in ((1, 2, 2, 5), (0, 4)))
    memory = draws.open(params, prompt, ends)
    return [
        draws.choose(row[None], [Turn(0, memory, rules[i % len(rules)])])[0]
        for i, row in enumerate(rows)
    ]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("size", "seeds"),
    [
        *((size, range(8)) for size in (8, 255, 256, 257)),
        (5000, range(4)),
        *(pytest.param(size, range(20), marks=pytest.mark.slow) for size in (8, 257, 5000)),
    ],
)
def test_tokens_are_the_definitions(isa, name, size, seeds) -> None:
    compiled, random = CompiledDraws(size, 1, isa=isa), np.random.default_rng(size)
    for seed in seeds:
        params = SamplingParams(max_tokens=12, seed=seed, **SETTINGS[name])
        rows = likely(random, size, 12)
        assert tokens_of(compiled, params, rows) == tokens_of(NumpyDraws(), params, rows)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", ["likely", "flat", "equal"])
def test_tokens_are_the_definitions_at_the_real_size(name, kind) -> None:
    random = np.random.default_rng(7)
    rows = {
        "likely": likely(random, REAL, 3),
        "flat": random.normal(size=(3, REAL)).astype(np.float32),
        "equal": np.zeros((3, REAL), np.float32),
    }[kind]
    found = []
    for isa in ISAS:
        params = SamplingParams(max_tokens=5, seed=11, logprobs=3, **SETTINGS[name])
        found.append(tokens_of(CompiledDraws(REAL, 1, isa=isa), params, rows))
    assert all(other == found[0] for other in found), "the same bits on each instruction set"
    expected = tokens_of(NumpyDraws(), params, rows)
    for mine, theirs in zip(found[0], expected, strict=True):
        assert mine is not None and theirs is not None
        assert mine.token == theirs.token
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-6)
        assert [token for token, _ in mine.top_logprobs] == [t for t, _ in theirs.top_logprobs]


def masks(size: int) -> dict[str, Allowed]:
    """What grammars allow: a token, some of one block, nearly all, every other, whole blocks."""
    ids, random = np.arange(size), np.random.default_rng(size)
    found = {
        "one": ids == size * 2 // 3,
        "last": ids == size - 1,
        "some of a block": (ids // 256 == size // 512) & (ids % 7 == 0),
        "nearly all": random.random(size) < 0.98,
        "all": ids >= 0,
        "alternating": ids % 2 == 1,
        "blocks": (ids // 256 % 3 == 1) | (ids < 9),
        "half": random.random(size) < 0.5,
    }
    return {name: Allowed(mask | ~mask.any()) for name, mask in found.items()}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("size", [8, 257, 5000])
def test_masked_tokens_are_the_definitions(isa, name, size) -> None:
    compiled, random = CompiledDraws(size, 1, isa=isa), np.random.default_rng(size)
    for seed, (kind, rule) in enumerate(masks(size).items()):
        params = SamplingParams(max_tokens=12, seed=seed, **SETTINGS[name])
        rows = likely(random, size, 12)
        found = tokens_of(compiled, params, rows, (rule,))
        assert found == tokens_of(NumpyDraws(), params, rows, (rule,)), kind
        assert all(choice is not None and rule.has(choice.token) for choice in found)


def test_masked_tokens_are_the_definitions_at_the_real_size() -> None:
    """Every setting under every mask; the same bits on each instruction set, logprobs too."""
    rows = likely(np.random.default_rng(8), REAL, 2)
    compiled = [CompiledDraws(REAL, 1, isa=isa) for isa in ISAS]
    for name, setting in SETTINGS.items():
        for kind, rule in masks(REAL).items():
            params = SamplingParams(max_tokens=5, seed=12, logprobs=2, **setting)
            found = [tokens_of(draws, params, rows, (rule,)) for draws in compiled]
            assert all(other == found[0] for other in found), (name, kind)
            expected = tokens_of(NumpyDraws(), params, rows, (rule,))
            for mine, theirs in zip(found[0], expected, strict=True):
                assert mine is not None and theirs is not None
                assert mine.token == theirs.token, (name, kind)
                assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-6)


@settings(deadline=None, max_examples=up_to(300))
@given(settings_of_every_size(top_k=st.integers(0, 20), min_p=st.sampled_from([0.0, 0.1, 1.0])))
def test_any_setting_is_the_definitions(case) -> None:
    """Ties, masks, forced tokens and numbers of every size."""
    row, params, rules = case
    rows = np.tile(row, (8, 1))
    found = [
        [choice.token if choice else None for choice in tokens_of(draws, params, rows, rules)]
        for draws in (NumpyDraws(), *(CompiledDraws(row.size, 1, isa=isa) for isa in ISAS))
    ]
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_seed_is_one_answer_in_any_batch(threads) -> None:
    """Neighbours, their number, the row and the number of threads change nothing."""
    size, random = 3000, np.random.default_rng(3)
    logits = likely(random, size, 40)
    params = SamplingParams(max_tokens=9, seed=5, logprobs=2, **CARD)
    alone = tokens_of(CompiledDraws(size, 1), params, logits[:8])
    draws = CompiledDraws(size, threads)
    mine = draws.open(params, (1, 2, 2, 5), (0, 4))
    found = []
    for step in range(8):
        num_others = int(random.integers(0, 24))
        turns = [
            Turn(8 + i, draws.open(SamplingParams(seed=i, **CARD), (1,), ()))
            for i in range(num_others)
        ]
        turns.insert(int(random.integers(0, num_others + 1)), Turn(step, mine))
        choices = draws.choose(logits, turns)
        found += [choices[i] for i, turn in enumerate(turns) if turn.draw is mine]
    assert found == alone


def test_the_random_numbers_are_philoxs() -> None:
    """Of one row of equal logits, the token tells the number."""
    size = 1 << 16
    draws, row = CompiledDraws(size, 1), np.zeros((1, 1 << 16), np.float32)
    for seed in (0, 1, 2**63, 2**64 - 1):
        memory = draws.open(SamplingParams(temperature=1.0, seed=seed, max_tokens=50), (1,), ())
        for position in range(50):
            [choice] = draws.choose(row, [Turn(0, memory)])
            assert choice is not None
            assert choice.token == int(uniform(seed, position) * size)


def test_scores_are_torchs() -> None:
    size = 5000
    rows = likely(np.random.default_rng(2), size, 20)
    tokens = [int(row.argsort()[-1 - i]) for i, row in enumerate(rows)]
    expected = torch.log_softmax(torch.from_numpy(rows).double(), -1).numpy()
    scores = CompiledDraws(size, 2).score(rows, tokens, 5)
    for i, score in enumerate(scores):
        assert score is not None
        assert score.rank == i + 1
        assert score.logprob == pytest.approx(expected[i, tokens[i]], abs=1e-6)
        best = np.argsort(-rows[i], kind="stable")[:5]
        assert [token for token, _ in score.top_logprobs] == best.tolist()
        np.testing.assert_allclose([p for _, p in score.top_logprobs], expected[i, best], atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 255, 256, 999])
@pytest.mark.parametrize("params", [{}, CARD, {"logprobs": 1}, {"repetition_penalty": 2.0}])
def test_a_row_that_is_not_finite_is_told_apart(bad, place, params) -> None:
    rows = np.zeros((2, 1000), np.float32)
    rows[1, place] = bad
    draws = CompiledDraws(1000, 1)
    memories = [draws.open(SamplingParams(**params), (1,), ()) for _ in range(2)]
    good, spoiled = draws.choose(rows, [Turn(i, memory) for i, memory in enumerate(memories)])
    assert good is not None and spoiled is None
    assert [score is None for score in draws.score(rows, [0, 0], 1)] == [False, True]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 255, 256, 999])
@pytest.mark.parametrize("params", [{}, CARD, {"logprobs": 1}, {"repetition_penalty": 2.0}])
def test_what_is_not_finite_is_found_where_no_token_may_come(bad, place, params) -> None:
    rows = np.zeros((2, 1000), np.float32)
    rows[1, place] = bad
    draws, ids = CompiledDraws(1000, 1), np.arange(1000)
    for rule in (Allowed(ids == 500), Allowed(ids != place), Allowed(ids == place), Forced(500)):
        memories = [draws.open(SamplingParams(**params), (1,), ()) for _ in range(2)]
        turns = [Turn(i, memory, rule) for i, memory in enumerate(memories)]
        good, spoiled = draws.choose(rows, turns)
        assert good is not None and spoiled is None


def test_a_log_probability_is_as_near_as_float32_allows() -> None:
    """Of rows where errors of one kind add up: a greatest one far above many equal ones."""
    draws = CompiledDraws(REAL, 1)
    for distance in np.linspace(0, 40, 161, dtype=np.float32):
        row = np.full((1, REAL), -distance, np.float32)
        row[0, 77] = 0
        [score] = draws.score(row, [77], 0)
        total = math.log1p((REAL - 1) * math.exp(-float(distance)))
        assert score is not None and score.logprob == pytest.approx(-total, abs=3e-7)


def test_rows_of_any_layout_are_read_right() -> None:
    """Every layout that an engine may return: padded rows, one row for all, others copied."""
    size, random = 300, np.random.default_rng(4)
    plain = likely(random, size, 6)
    padded = np.full((6, 320), 99, np.float32)
    padded[:, :size] = plain
    layouts = {
        "padded": padded[:, :size],
        "reversed": plain[::-1].copy()[::-1],
        "columns": np.asfortranarray(plain),
        "float64": plain.astype(np.float64),
        "one": np.broadcast_to(plain[3], (6, size)),
        "overlapping": np.lib.stride_tricks.sliding_window_view(np.append(plain, plain), size)[:6],
    }
    draws = CompiledDraws(size, 2)
    for rows in layouts.values():
        memories = [draws.open(SamplingParams(), (1,), ()) for _ in range(6)]
        choices = draws.choose(rows, [Turn(i, memory) for i, memory in enumerate(memories)])
        found = [choice.token if choice else None for choice in choices]
        assert found == np.argmax(rows, axis=1).tolist()


def test_without_the_library_numpy_draws(monkeypatch, caplog) -> None:
    def absent() -> None:
        raise EnvironmentUnfitError("no compiler.")

    monkeypatch.setattr(draw, "load_library", absent)
    assert isinstance(open_draws(FlatEngine(10)), NumpyDraws)
    assert "no compiler" in caplog.text
    monkeypatch.undo()
    assert isinstance(open_draws(FlatEngine(10)), CompiledDraws)


def test_a_batch_that_does_not_fit_is_refused() -> None:
    engine = DrawEngine(100, 1)
    memory = CompiledDraws(100, 1).open(SamplingParams(), (1,), ())
    for rows, logits in (([1], 100), ([-1], 100), ([0], 99)):
        with pytest.raises(ConfigError, match="refuses"):
            engine.run([memory.c], np.zeros((1, logits), np.float32), rows)
    with pytest.raises(ValueError, match="mask of 99"):
        memory.set_rule(Allowed(np.ones(99, np.bool_)))
    memory.c.forced = 100
    with pytest.raises(ConfigError, match="forced"):
        engine.run([memory.c], np.zeros((1, 100), np.float32), [0])
    with pytest.raises(EnvironmentUnfitError, match="instruction set"):
        DrawEngine(100, 1, isa=99)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("number", range(20))
def test_frequencies_are_the_definitions(number, count) -> None:
    """A chi-square test over as many draws, of random logits and settings."""
    random = np.random.default_rng(number)
    size = int(random.integers(20, 400))
    logits = likely(random, size)
    params = {
        "temperature": float(random.uniform(0.3, 2)),
        "top_k": int(random.choice([0, size // 3])),
        "top_p": float(random.choice([1.0, 0.95, 0.6])),
        "min_p": float(random.choice([0.0, 0.02])),
    }
    draws, counts = CompiledDraws(size, 2), np.zeros(size)
    each = SamplingParams(max_tokens=1 << 30, seed=1, **params)
    memories = [
        draws.open(SamplingParams(max_tokens=100, seed=seed, **params), (1,), ())
        for seed in range(number, number + 500)
    ]
    turns = [Turn(0, memory) for memory in memories]
    for _ in range(count // len(turns)):
        for choice in draws.choose(logits, turns):
            assert choice is not None
            counts[choice.token] += 1
    assert excess(counts, probabilities(logits[0], each)) < 4.5
