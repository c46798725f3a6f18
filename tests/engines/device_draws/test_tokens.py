"""The device sampler's tokens are those of the definition in NumPy and of the CPU's sampler."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.build.check.kernels.sampler_cases import CARD, REAL, SETTINGS, likely
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, NumpyDraws, Turn
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SampledToken, SamplingParams, uniform
from support.emulated_draws import Blocks, Device, check_batch
from support.examples import up_to
from support.sampler_cases import excess, probabilities, settings_of_every_size

Tokens = list[int | None]


def tokens_of(
    draws: Any, params: SamplingParams, rows: np.ndarray, rules: Sequence[Rule] = (FREE,)
) -> Tokens:
    """One sequence's tokens, row after row."""
    prompt, ends = (tuple(i % rows.shape[1] for i in ids) for ids in ((1, 2, 2, 5), (0, 4)))
    if isinstance(draws, Device):
        found = draws.tokens_of(params, rows, rules, prompt, ends)
    else:
        memory = draws.open(params, prompt, ends)
        found = [
            draws.choose(row[None], [Turn(0, memory, rules[i % len(rules)])])[0]
            for i, row in enumerate(rows)
        ]
    return [choice.token if choice else None for choice in found]


def check(
    device: Device, params: SamplingParams, rows: np.ndarray, rules: Sequence[Rule] = (FREE,)
) -> Tokens:
    """Return the device's tokens; fail unless both CPU samplers give them too."""
    found = tokens_of(device, params, rows, rules)
    assert found == tokens_of(CompiledDraws(rows.shape[1], 1), params, rows, rules)
    assert found == tokens_of(NumpyDraws(), params, rows, rules)
    return found


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("size", [8, 255, 256, 257, 5000])
def test_tokens_are_the_definitions(name: str, size: int) -> None:
    device, random = Device(size), np.random.default_rng(size)
    for seed in range(4 if size < 1000 else 1):
        params = SamplingParams(max_tokens=12, seed=seed, **SETTINGS[name])
        check(device, params, likely(random, size, 6))
    device.close()


FEW = ("card",)
SOME = ("many of top_k", "all three", "penalties", "wide")


@pytest.mark.parametrize("kind", ["likely", "flat", "equal"])
@pytest.mark.parametrize(
    "names", [FEW, pytest.param(SOME, marks=pytest.mark.slow)], ids=["card", "some"]
)
def test_tokens_are_the_definitions_at_the_real_size(kind: str, names: tuple[str, ...]) -> None:
    """As the GPU launches it: a thousand threads choose, of 512 slices."""
    random = np.random.default_rng(7)
    rows = {
        "likely": likely(random, REAL, 2),
        "flat": random.normal(size=(2, REAL)).astype(np.float32),
        "equal": np.zeros((2, REAL), np.float32),
    }[kind]
    device = Device(REAL, blocks=Blocks())
    for name in names:
        check(device, SamplingParams(max_tokens=5, seed=11, **SETTINGS[name]), rows)
    device.close()


@settings(deadline=None, max_examples=up_to(100))
@given(
    settings_of_every_size(
        top_k=st.integers(0, 20) | st.just(2**31 - 1), min_p=st.sampled_from([0.0, 1e-20, 0.1, 1.0])
    )
)
def test_any_setting_is_the_definitions(case) -> None:
    """Ties, masks, forced tokens and numbers of every size."""
    row, params, rules = case
    device = Device(row.size)
    check(device, params, np.tile(row, (6, 1)), rules)
    device.close()


@pytest.mark.parametrize("temperature", [1e-300, 1e-31, 1e-29, 1e29, 1e31, 1e300])
def test_extreme_temperatures_are_the_cpus(temperature: float) -> None:
    """Where they have no effect in float32 any more; NumPy goes further."""
    rows = likely(np.random.default_rng(0), 300, 4)
    params = SamplingParams(max_tokens=5, seed=9, temperature=temperature)
    device = Device(300)
    assert tokens_of(device, params, rows) == tokens_of(CompiledDraws(300, 1), params, rows)
    device.close()


@pytest.mark.parametrize("penalty", [1e-300, 1e-40, 1e40, 1e300])
def test_extreme_penalties_are_the_cpus(penalty: float) -> None:
    rows = likely(np.random.default_rng(1), 300, 6)
    params = SamplingParams(
        max_tokens=9,
        seed=9,
        temperature=1.0,
        repetition_penalty=penalty,
        logit_bias=((3, 1e300), (3, -1e300), (8, -1e300)),
    )
    device = Device(300)
    assert tokens_of(device, params, rows) == tokens_of(CompiledDraws(300, 1), params, rows)
    device.close()


@pytest.mark.parametrize("name", ["greedy", "card", "all three", "penalties", "bias"])
@pytest.mark.parametrize("num_allowed", [1, 3, 400, 599])
def test_masks_of_few_and_of_many_tokens(name: str, num_allowed: int) -> None:
    random = np.random.default_rng(num_allowed)
    rules = []
    for _ in range(6):
        mask = np.zeros(600, np.bool_)
        mask[random.choice(600, num_allowed, replace=False)] = True
        rules.append(Allowed(mask))
    device = Device(600)
    params = SamplingParams(max_tokens=8, seed=3, **SETTINGS[name])
    tokens = check(device, params, likely(random, 600, 6), rules)
    for rule, token in zip(rules, tokens, strict=True):
        assert token is not None and rule.has(token)
    device.close()


def test_ends_come_early_where_nothing_else_may() -> None:
    """They may not before min_tokens are out; then a mask holds as it is, and so does none."""
    only, others = np.zeros(300, np.bool_), np.ones(300, np.bool_)
    only[[0, 4]] = True
    rows = np.zeros((8, 300), np.float32)
    rows[:, 4], rows[:, 7] = 9, 5
    device = Device(300)
    params = SamplingParams(max_tokens=9, min_tokens=6)
    rules = [FREE, FREE, Allowed(only), Allowed(others)]
    assert check(device, params, rows, rules) == [7, 7, 4, 7, 7, 7, 4, 4]
    every = SamplingParams(max_tokens=9, min_tokens=6, stop_token_ids=tuple(range(300)))
    assert check(device, every, rows) == [4] * 8
    device.close()


def test_many_steps_remember_all_of_them() -> None:
    """What is seen and counted, over more tokens than there are in the vocabulary."""
    device, random = Device(40), np.random.default_rng(1)
    params = SamplingParams(
        max_tokens=200,
        seed=8,
        temperature=1.0,
        repetition_penalty=1.5,
        presence_penalty=0.25,
        frequency_penalty=0.125,
        logit_bias=((3, 1.5), (9, -2.0), (3, 0.25)),
    )
    rows = (random.integers(-40, 40, (120, 40)) / 8).astype(np.float32)
    assert len(set(check(device, params, rows))) > 30
    device.close()


BLOCKS = [Blocks(1, 1), Blocks(1, 2), Blocks(3, 5), Blocks(8, 32)]


@pytest.mark.parametrize("name", ["greedy", "card", "all three", "penalties"])
def test_a_seed_is_one_answer_in_any_batch(name: str) -> None:
    """Threads, their order, neighbours, the order of turns, the slot and the row change nothing."""
    size, random = 1500, np.random.default_rng(3)
    rows = likely(random, size, 12)
    params = SamplingParams(max_tokens=9, seed=5, **SETTINGS[name])
    alone = tokens_of(CompiledDraws(size, 1), params, rows[:4])
    for number, blocks in enumerate(BLOCKS):
        device = Device(size, 6, num_rows=12, blocks=blocks, seed=number)
        slot = int(random.integers(6))
        mine = device.draws.open(slot, params, (1, 2, 2, 5), (0, 4))
        found: list[SampledToken | None] = []
        for step in range(4):
            others = [i for i in range(6) if i != slot][: int(random.integers(0, 6))]
            turns = [
                Turn(4 + i, device.draws.open(i, SamplingParams(seed=i, **CARD), (1,), ()))
                for i in others
            ]
            turns.insert(int(random.integers(0, len(turns) + 1)), Turn(step, mine))
            choices = device.step(rows, turns)
            found += [choices[i] for i, turn in enumerate(turns) if turn.draw is mine]
        assert [choice and choice.token for choice in found] == alone
        device.close()


def test_all_settings_side_by_side() -> None:
    """What runs on a real GPU too, there at the real size."""
    size, num_steps = 600, 4
    rows = likely(np.random.default_rng(4), size, num_steps * len(SETTINGS))
    device = Device(size, len(SETTINGS), num_rows=len(rows), blocks=Blocks(2, 3))
    check_batch(device, rows, num_steps)
    device.close()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 255, 256, 999])
@pytest.mark.parametrize(
    "params", [{}, CARD, {"repetition_penalty": 2.0, "frequency_penalty": 1.0}], ids=str
)
def test_a_row_that_is_not_finite_is_told_apart(bad: float, place: int, params: Any) -> None:
    """Also of a token that may not come, and where one is forced; its tables stay as they are."""
    rows = np.zeros((3, 1000), np.float32)
    rows[1:, place] = bad
    without = np.ones(1000, np.bool_)
    without[place] = False
    device = Device(1000, 3)
    draws = [device.draws.open(i, SamplingParams(seed=1, **params), (1,), ()) for i in range(3)]
    rules = [Allowed(without), Allowed(without), Forced(5)]
    turns = [Turn(i, draw, rule) for i, (draw, rule) in enumerate(zip(draws, rules, strict=True))]
    good, *spoiled = device.step(rows, turns)
    assert good is not None and spoiled == [None, None]
    assert [draw.c.position for draw in draws] == [1, 0, 0]
    whole = np.zeros((3, 1000), np.float32)
    fresh = device.draws.open(0, SamplingParams(seed=1, **params), (1,), ())
    again = device.step(whole, [Turn(0, fresh), Turn(1, draws[1]), Turn(2, draws[2])])
    assert again[0] is not None and again == [again[0]] * 3
    device.close()


def test_the_random_numbers_are_philoxs() -> None:
    """Of one row of equal logits, the token tells the number."""
    size = 1 << 14
    device, row = Device(size), np.zeros((1, size), np.float32)
    for seed in (0, 1, 2**63, 2**64 - 1):
        params = SamplingParams(temperature=1.0, seed=seed, max_tokens=50)
        draw = device.draws.open(0, params, (1,), ())
        for position in (0, 1, 2, 2**32, 2**64 - 1):
            draw.c.position = position
            [choice] = device.step(row, [Turn(0, draw)])
            assert choice is not None and choice.token == int(uniform(seed, position) * size)
    device.close()


@pytest.mark.parametrize(
    "number", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2, 3))]
)
def test_frequencies_are_the_definitions(number: int) -> None:
    """A chi-square test over many seeds, of random logits and settings."""
    random = np.random.default_rng(number)
    size, num_slots = int(random.integers(20, 200)), 100
    logits = likely(random, size)
    chosen: dict[str, Any] = {
        "temperature": float(random.uniform(0.3, 2)),
        "top_k": int(random.choice([0, size // 3])),
        "top_p": float(random.choice([1.0, 0.95, 0.6])),
        "min_p": float(random.choice([0.0, 0.02])),
    }
    device, counts = Device(size, num_slots), np.zeros(size)
    turns = [
        Turn(0, device.draws.open(i, SamplingParams(seed=number + i, **chosen), (1,), ()))
        for i in range(num_slots)
    ]
    for _ in range(20):
        for choice in device.step(logits, turns):
            assert choice is not None
            counts[choice.token] += 1
    assert excess(counts, probabilities(logits[0], SamplingParams(**chosen))) < 4.5
    device.close()
