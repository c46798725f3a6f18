"""Ratios and verdicts, on simulated runs whose true throughput is known."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from nemotrt.profiles.command import profile
from nemotrt.profiles.runs.metrics.student import student_quantile
from nemotrt.profiles.runs.record.prediction import Prediction
from nemotrt.profiles.runs.record.result import DriverRecord, Status, write_result
from nemotrt.profiles.verdict import ratio
from nemotrt.profiles.verdict.judge import Outcome, judge
from nemotrt.profiles.verdict.ratio import Spread, throughput_ratio
from support.simulated_run import simulate


def test_two_runs_of_the_same_thing_are_not_distinguishable():
    runs = [simulate(seed) for seed in range(240)]
    pairs = zip(runs[::2], runs[1::2], strict=True)
    hits = [throughput_ratio([a], [b]).is_distinguishable for a, b in pairs]
    assert sum(hits) <= 0.05 * len(hits)


def test_five_percent_is_found_by_repeats():
    """One run a side allows for what it can't see, so it leaves 5 % undecided, and finds 20 %."""
    fast = [simulate(s, speed=1.05) for s in range(0, 80, 2)]
    slow = [simulate(s) for s in range(1, 81, 2)]
    single = [throughput_ratio([a], [b]) for a, b in zip(fast, slow, strict=True)]
    assert not any(ratio.low > 1 for ratio in single)
    assert all("undecided within 10%" in ratio.text for ratio in single)
    assert throughput_ratio([simulate(0, speed=1.2)], [simulate(1)]).low > 1
    groups = [(fast[i : i + 4], slow[i : i + 4]) for i in range(0, 40, 4)]
    ratios = [throughput_ratio(*sides) for sides in groups]
    assert sum(ratio.low > 1 for ratio in ratios) >= 9
    assert np.mean([ratio.low <= 1.05 <= ratio.high for ratio in ratios]) >= 0.9
    assert np.mean([ratio.best for ratio in ratios]) == pytest.approx(1.05, abs=0.005)


SLOW = {"noise": 0.05, "drift_noise": 0.03, "drift_memory": 0.999}


def test_repeated_runs_cover_drifts_that_are_slower_than_a_run():
    """From within one run such a drift can't be seen; three runs a side show it."""
    runs = [simulate(seed, per_user=3, **SLOW) for seed in range(240)]
    single = [throughput_ratio([a], [b]) for a, b in zip(runs[::2], runs[1::2], strict=True)]
    assert np.mean([ratio.is_distinguishable for ratio in single]) < 0.05  # allowed for
    sides = [runs[i : i + 3] for i in range(0, len(runs), 3)]
    ratios = [throughput_ratio(a, b) for a, b in zip(sides[::2], sides[1::2], strict=True)]
    assert sum(ratio.is_distinguishable for ratio in ratios) <= 0.1 * len(ratios)  # of 40


def test_what_one_run_leaves_open_is_said():
    runs = [simulate(seed) for seed in range(4)]
    one = judge(runs[:1], runs[1:2], 1.0, is_given_concurrency=True)
    assert any("--repeat" in caveat for caveat in one.caveats)
    assert "95%" not in one.sentence and "one run a side: undecided within 10%" in one.sentence
    two = judge(runs[:2], runs[2:], 1.0, is_given_concurrency=True)
    assert any("two runs a side show roughly" in caveat for caveat in two.caveats)
    assert "95%" not in two.sentence
    three = judge(runs[:3], runs[1:], 1.0, is_given_concurrency=True)
    assert not any("--repeat" in caveat for caveat in three.caveats)
    assert "95% interval" in three.sentence


def rates(values):
    """Runs whose logarithms of tokens a second are `values`."""
    runs = [simulate(1) for _ in values]
    for run, value in zip(runs, values, strict=True):
        entry = run.metrics["tokens_per_s"]
        run.metrics["tokens_per_s"] = entry.model_copy(update={"value": math.exp(value)})
    return runs


def test_two_runs_a_side_take_the_t_of_their_few_degrees_of_freedom(monkeypatch):
    """By hand: rates 0 and 0.2 have a mean's variance of 0.02 / 2 and one degree of freedom.

    Against a baseline that never varies the reach is t(0.975, 1) = 12.706 times 0.1; against
    one that varies as much it is t(0.975, 2) = 4.303 times sqrt(0.02).
    """
    monkeypatch.setattr(ratio, "spread_of", lambda run: Spread(0.0, 5.0))
    candidates = rates([0.0, 0.2])
    alone = throughput_ratio(candidates, rates([0.0, 0.0]))
    assert math.log(alone.high / alone.best) == pytest.approx(12.7062 * 0.1, rel=1e-5)
    both = throughput_ratio(candidates, rates([0.0, 0.2]))
    assert math.log(both.best / both.low) == pytest.approx(4.30265 * math.sqrt(0.02), rel=1e-5)


def test_welchs_freedom_is_a_fraction(monkeypatch):
    """By hand: variances 4 and 1 with 2 and 6 degrees give 25 / (16 / 2 + 1 / 6) = 3.0612.

    They are wider than what one run a side is allowed for.
    """
    within = {}
    monkeypatch.setattr(ratio, "spread_of", lambda run: within[id(run)])
    sides = [rates([0.0]) for _ in range(2)]
    spreads = Spread(4e-2, 2.0), Spread(1e-2, 6.0)
    for side, spread in zip(sides, spreads, strict=True):
        within[id(side[0])] = spread
    found = throughput_ratio(*sides)
    freedom = 25 / (16 / 2 + 1 / 6)
    expected = student_quantile(0.975, freedom) * math.sqrt(5e-2)
    assert math.log(found.high) == pytest.approx(expected, rel=1e-9)
    assert student_quantile(0.975, 4) < student_quantile(0.975, freedom)
    # Runs of one side whose own noise is larger than what differs between them: the same rule.
    pair = rates([0.0, 0.0])
    for run, spread in zip(pair, spreads, strict=True):
        within[id(run)] = spread
    within[id(sides[1][0])] = Spread(0.0, 3.0)
    mixed = throughput_ratio(pair, sides[1])
    expected = student_quantile(0.975, freedom) * math.sqrt(5e-2 / 4)
    assert math.log(mixed.high) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("target", "outcome"), [(1.0, "met"), (3.0, "not met"), (2.0, "undecided")]
)
def test_outcomes(target, outcome):
    fast, slow = simulate(1, speed=2.0), simulate(2)
    verdict = judge([fast], [slow], target, is_given_concurrency=True)
    assert verdict.outcome == outcome
    assert verdict.ratio is not None
    assert verdict.ratio.best == pytest.approx(2, rel=0.05)
    assert f"a ratio of {target:g} is {outcome}" in verdict.sentence


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": Status.FAILED, "reason": "it died."}, "run is failed: it died"),
        ({"machine": {"architecture": "x86_64", "num_cores": 64}}, "hardware differs"),
        (
            {"target": {"kind": "simulated", "address": "-", "model": "m", "precision": "fp8"}},
            "precision class differs: 16-bit against 8-bit",
        ),
        (
            {"driver": DriverRecord(cpu_share=0.99, loop_lag_p99_ms=9, is_limit=True)},
            "load driver was the limit",
        ),
    ],
)
def test_what_is_not_comparable(changes, reason):
    verdict = judge([simulate(1)], [simulate(2, **changes)], 1.0, is_given_concurrency=True)
    assert verdict.outcome is Outcome.NOT_COMPARABLE
    assert reason in verdict.sentence


def stated(seed, **facts):
    run = simulate(seed)
    return run.model_copy(update={"target": run.target | facts})


def test_what_was_stated_of_servers_decides_too():
    """Types of the memory forbid a comparison, settings are a reader's to weigh."""
    here = {"hardware": "1 x H100", "kv_cache": "bf16", "clock_mhz": "1980"}

    def verdict(**there):
        ours, theirs = stated(1, **here), stated(2, **(here | there))
        return judge([ours], [theirs], 1.0, is_given_concurrency=True)

    assert verdict().reasons == ()
    assert any("as the user states it" in caveat for caveat in verdict().caveats)
    assert "hardware differs: 1 x H100 against 1 x H200" in verdict(hardware="1 x H200").sentence
    assert "the kv_cache differs: bf16 against fp8." in verdict(kv_cache="fp8").sentence
    assert verdict(clock_mhz="1500").reasons == ()
    assert "the clock_mhz differs: 1980 against 1500." in verdict(clock_mhz="1500").caveats


def test_an_open_loop_is_not_comparable():
    """Its throughput is the rate that was asked for."""
    run = simulate(1)
    paced = run.model_copy(
        update={"workload": run.workload.model_copy(update={"arrival": "poisson"})}
    )
    verdict = judge([paced], [simulate(2)], 1.0, is_given_concurrency=True)
    assert "the candidate run was an open loop" in verdict.sentence


def test_other_lengths_are_not_comparable():
    verdict = judge([simulate(1)], [simulate(2, osl=32)], 1.0, is_given_concurrency=True)
    assert "osl differs: 64 against 32" in verdict.sentence


def test_each_side_must_be_at_its_best_concurrency():
    sweep = [simulate(seed, users=users) for seed, users in enumerate((1, 4))]
    knee = [*sweep, simulate(9, users=8, speed=0.4)]
    assert "candidate ran at its best" in judge(sweep, knee, 1.0).sentence
    verdict = judge(knee, knee, 1.0)
    assert verdict.candidate.workload.concurrency == 4
    assert verdict.outcome is Outcome.UNDECIDED
    assert "not distinguishable" in verdict.sentence


def test_the_command(tmp_path):
    for name, run in (("a", simulate(1, speed=1.5)), ("b", simulate(2))):
        (tmp_path / name).mkdir()
        write_result(run, tmp_path / name / "result.json")
    args = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--at-given-concurrency"]
    done = CliRunner().invoke(profile, [*args, "--target", "1.2", "-o", str(tmp_path / "c.html")])
    assert done.exit_code == 0, done.output
    assert "a ratio of 1.2 is met" in done.stdout
    assert "a ratio of 1.2 is met" in (tmp_path / "c.html").read_text()
    done = CliRunner().invoke(profile, [*args, "--target", "6", "--gate", "--json"])
    assert done.exit_code == 1
    printed = json.loads(done.stdout)
    assert printed["outcome"] == "not met"
    assert {change["name"] for change in printed["changes"]} >= {"tokens_per_s", "tpot_ms"}


def test_the_planners_expectation_stands_beside(tmp_path):
    plan = Prediction(
        gpu="a10g",
        model="m",
        precision="bf16",
        batch_size=1,
        tokens_per_s_low=1.0,
        tokens_per_s=10.0,
        tokens_per_s_high=20.0,
        ttft_ms=1.0,
        tpot_ms=1.0,
        decode_step_ms={"total": 1.0},
        bound_by="weights",
        limited_by="memory",
        notes=(),
    )
    faster = plan.model_copy(update={"tokens_per_s": 63.0})
    ours, theirs = simulate(1, prediction=faster), simulate(2, prediction=plan)
    assert judge([ours], [theirs], 6.0).predicted_ratio == pytest.approx(6.3)
    assert judge([ours], [simulate(3)], 6.0).predicted_ratio is None


@pytest.mark.slow
def test_search_stops_at_the_knee(engine_folder, tmp_path):
    """The engine holds 8; 16 users bring nothing over 8, so the search ends there or before.

    Between the powers of two beside the best it looks closer.
    """
    args = [str(engine_folder), "--search", "--isl", "8", "--osl", "6", "-n", "8", "-q"]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "s"), "--warmup", "1"])
    assert done.exit_code == 0, done.output
    runs = sorted(int(folder.name[1:]) for folder in (tmp_path / "s").glob("c*"))
    powers = [run for run in runs if run & (run - 1) == 0]
    assert powers == [2**k for k in range(len(powers))]
    assert 2 <= len(powers) <= 6
    assert len(runs) <= len(powers) + 6 and max(runs) == max(powers)
    assert "at best, with" in (tmp_path / "s" / "report.html").read_text()
