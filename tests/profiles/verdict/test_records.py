"""A verdict rests on what was measured: no copies, and no figures that the requests don't give."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.profiles.runs.record.result import write_result
from support.simulated_run import simulate


@pytest.fixture
def sides(tmp_path: Path) -> Path:
    for side, seed in (("ours", 0), ("theirs", 10)):
        for number in range(3):
            folder = tmp_path / side / f"c4-{number}"
            folder.mkdir(parents=True)
            made = simulate(seed + number, started_at=f"2026-01-01T0{number}:00:00")
            write_result(made, folder / "result.json")
    return tmp_path


def compare(sides: Path, other: str = "theirs") -> Result:
    words = ["compare", str(sides / "ours"), str(sides / other), "--at-given-concurrency"]
    return CliRunner().invoke(main, [*words, "--target", "0.5", "--gate"])


def test_runs_that_are_what_they_say_are_judged(sides: Path) -> None:
    assert compare(sides).exit_code == 0


def test_a_copy_is_no_repeat(sides: Path) -> None:
    """Three copies of one run would have an interval without any width."""
    shutil.rmtree(sides / "ours/c4-1")
    shutil.copytree(sides / "ours/c4-0", sides / "ours/c4-1")
    done = compare(sides)
    assert done.exit_code == 2
    assert "candidate has the run that started at 2026-01-01T00:00:00 twice" in done.stderr


def test_a_run_is_not_compared_with_itself(sides: Path) -> None:
    """A gate whose two paths are one by mistake would always pass."""
    done = compare(sides, "ours")
    assert done.exit_code == 2 and "candidate and baseline share a run" in done.stderr


@pytest.mark.parametrize("where", ["metrics", "requests"])
def test_a_file_that_was_edited_is_not_judged(sides: Path, where: str) -> None:
    path = sides / "ours/c4-2/result.json"
    value = json.loads(path.read_text())
    if where == "metrics":
        value["metrics"]["tokens_per_s"]["value"] *= 2
    else:
        value["requests"][8]["arrival_tokens"][5] += 100
        value["requests"][8]["osl"] += 100
    path.write_text(json.dumps(value))
    done = compare(sides)
    assert done.exit_code == 1 and "tokens/s, and its requests give" in done.stderr, done.output
