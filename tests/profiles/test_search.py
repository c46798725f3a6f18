"""The search for the best concurrency, over targets whose best is known."""

import json
import random

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.profiles.command import profile
from nemotrt.profiles.load.choice.best_concurrency import next_concurrency
from nemotrt.profiles.runs import measure
from support.simulated_run import simulate


def rate(users: int, best: int) -> float:
    """Rises with the users up to `best`, then falls slowly."""
    return min(users, best) - max(users - best, 0) / 4


def search(best: int, max_concurrency: int = 1024) -> list[int]:
    rates: dict[int, float] = {}
    while (users := next_concurrency(rates, max_concurrency)) is not None:
        assert users not in rates
        rates[users] = rate(users, best)
    return list(rates)


def test_it_goes_on_between_the_powers_of_two():
    assert search(6) == [1, 2, 4, 8, 16, 6, 5, 7]
    assert search(1) == [1, 2]


def test_it_stays_below_the_limit():
    assert search(6, max_concurrency=4) == [1, 2, 4, 3]


@given(st.integers(1, 1024))
def test_it_finds_any_best_within_its_resolution_in_a_few_runs(best):
    tried = search(best)
    found = max(tried, key=lambda users: rate(users, best))
    assert abs(found - best) <= max(1, found / 8)
    assert found == best or best > 8
    num_doublings = sum(users & (users - 1) == 0 for users in tried)
    assert len(tried) - num_doublings <= 6


def test_noise_cannot_make_it_endless():
    rates: dict[int, float] = {}
    while (users := next_concurrency(rates)) is not None:
        rates[users] = random.Random(users).uniform(100, 107)
    assert len(rates) < 24


@given(st.integers())
def test_noise_does_not_keep_a_search_going(seed):
    """Whatever the rates, no more than six middles follow the doublings."""
    noise, rates = random.Random(seed), {}
    while (users := next_concurrency(rates, 64)) is not None:
        rates[users] = min(users, 8) * noise.uniform(0.7, 1.3)
    num_doublings = sum(users & (users - 1) == 0 for users in rates)
    assert len(rates) - num_doublings <= 6


@pytest.fixture
def six_is_best(monkeypatch):
    def run(target, workload, observers, drive):
        users = workload.concurrency
        per_user = rate(users, 6) / users
        still = {"noise": 0, "drift_noise": 0}
        return simulate(users, users=users, osl=8, per_user=2, speed=per_user, **still)

    monkeypatch.setattr(measure, "run", run)


def test_the_command_repeats_the_best_and_writes_each_run(six_is_best, tmp_path):
    args = ["http://127.0.0.1:1/v1", "--tokenizer", "tiny-dense", "--search", "--repeat", "2"]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "run"), "--no-gpu", "--json"])
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)["runs"]
    users = [found["workload"]["concurrency"] for found in runs]
    assert users[-1] == 6 and sorted(users) == sorted([*set(users), 6])
    folders = sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir())
    assert folders == sorted([*(f"c{count}" for count in set(users)), "c6-2"])
    assert "6 at a time" in (tmp_path / "run" / "report.html").read_text()
