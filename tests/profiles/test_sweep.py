"""Sweeps: one that is resumed keeps what is complete; repeats end when the rate is known."""

import json
import math

import pytest
from click.testing import CliRunner

from nemotrt.profiles.command import profile
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.record.result import Status, read_result, write_result
from nemotrt.profiles.runs.sweep import Sweep, is_settled
from support.simulated_run import simulate


def run(engine, output, *more):
    size = ["--isl", "8", "--osl", "2", "-n", "2", "--no-gpu", "-q", "-o", str(output)]
    return CliRunner().invoke(profile, [str(engine), *size, *more])


def test_a_sweep_goes_on_where_it_was(engine_folder, tmp_path):
    output = tmp_path / "s"
    assert run(engine_folder, output, "-c", "1,2").exit_code == 0
    starts = {name: read_result(output / name).started_at for name in ("c1", "c2")}
    broken = read_result(output / "c2").model_copy(update={"status": Status.INTERRUPTED})
    write_result(broken, output / "c2" / "result.json")
    (output / "c3.partial").mkdir()  # a killed run's journal
    done = run(engine_folder, output, "-c", "1,2,3", "--resume")
    assert done.exit_code == 0, done.output
    found = {name: read_result(output / name) for name in ("c1", "c2", "c3")}
    assert all(result.status == "complete" for result in found.values())
    assert found["c1"].started_at == starts["c1"]  # kept
    assert found["c2"].started_at != starts["c2"]  # measured anew: it was not complete
    page = (output / "report.html").read_text()
    assert "3 of 3 runs are complete" in page
    again = run(engine_folder, output, "-c", "1,2,3", "--resume", "--json")
    assert again.exit_code == 0
    assert [r["started_at"] for r in json.loads(again.stdout)["runs"]] == [
        result.started_at for result in found.values()
    ]


def test_what_is_resumed_must_be_the_same(engine_folder, tmp_path):
    output = tmp_path / "s"
    assert run(engine_folder, output, "-c", "1,2").exit_code == 0
    done = run(engine_folder, output, "-c", "1,2", "--resume", "--osl", "3")
    assert done.exit_code == 2 and "another load: its osl is 2, not 3" in done.output
    other = read_result(output / "c1")
    target = other.target | {"model": "another"}
    write_result(other.model_copy(update={"target": target}), output / "c1" / "result.json")
    done = run(engine_folder, output, "-c", "1,2,3", "--resume")
    assert done.exit_code in (0, 2)  # c2 is the nearest run, and it is of this target
    (output / "c2" / "result.json").write_text((output / "c1" / "result.json").read_text())
    done = run(engine_folder, output, "-c", "1,3", "--resume", "--force")
    assert done.exit_code == 2 and "give one of the two" in done.output


def test_a_foreign_folder_is_found_before_the_first_run(engine_folder, tmp_path):
    (tmp_path / "s" / "c2").mkdir(parents=True)
    done = run(engine_folder, tmp_path / "s", "-c", "1,2", "--force")
    assert done.exit_code == 2 and "no profile run" in done.output
    assert not (tmp_path / "s" / "c1").exists()


def rated(value):
    result = simulate(1)
    entry = result.metrics["tokens_per_s"].model_copy(update={"value": value})
    return result.model_copy(update={"metrics": result.metrics | {"tokens_per_s": entry}})


def test_when_a_rate_is_known():
    """By hand: rates 99, 100, 101 have a mean log's error of 0.0058; t(0.975, 2) is 4.303."""
    runs = [rated(value) for value in (99.0, 100.0, 101.0)]
    reach = math.expm1(4.30265 * 0.010000 / math.sqrt(3))
    assert is_settled(runs, reach * 1.01) and not is_settled(runs, reach * 0.99)
    assert not is_settled(runs[:2], 1.0)
    failed = [run.model_copy(update={"status": Status.FAILED}) for run in runs]
    assert not is_settled(failed, 1.0)


@pytest.mark.parametrize(
    ("values", "num_runs"),
    [([100.0] * 5, 3), ([100, 120, 100, 101, 100], 5), ([100, 103, 101, 102, 101.5], 5)],
)
def test_repeats_end_when_the_rate_is_known(monkeypatch, tmp_path, values, num_runs):
    left = [rated(float(value)) for value in values]
    monkeypatch.setattr(measure, "run", lambda *arguments: left.pop(0))
    workloads = [Workload(10, 64, 8, concurrency=4, num_warmup=4)] * 5
    results = Sweep(lambda workload: None, tmp_path / "s", within=0.01).run(workloads)
    assert len(results) == num_runs
    assert len(list((tmp_path / "s").glob("c4*"))) == num_runs


def test_within_needs_repeats(engine_folder, tmp_path):
    done = run(engine_folder, tmp_path / "s", "--within", "2", "--repeat", "2")
    assert done.exit_code == 2 and "--within needs --repeat 3" in done.output


@pytest.mark.parametrize(
    ("num_whole", "tried", "best"),
    [(2, [1, 2, 4, 3], 2), (100, [1, 2, 4, 8, 16, 6, 5, 7], 6), (0, [1], None)],
)
def test_a_concurrency_that_fails_brings_a_search_nothing(
    monkeypatch, tmp_path, num_whole, tried, best
):
    """More than `num_whole` users are refused; the search stays below, and repeats the best."""

    def run(target, workload, *_):
        users = workload.concurrency
        found = rated(min(users, 6) * 10.0 - max(users - 6, 0))
        changes = {"workload": found.workload.model_copy(update={"concurrency": users})}
        if users > num_whole:
            changes |= {"status": Status.FAILED, "reason": "refused."}
        return found.model_copy(update=changes)

    monkeypatch.setattr(measure, "run", run)
    sweep = Sweep(lambda workload: None, tmp_path / "s")
    results = sweep.search(lambda users: [Workload(10, 64, 8, concurrency=users)] * 2)
    users = [result.workload.concurrency for result in results]
    assert users == ([*tried, best] if best else tried)
    assert (tmp_path / "s" / "report.html").is_file()
