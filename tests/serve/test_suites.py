"""Peers' own tests of their servers, against ours: what suites/run.py finds, and how it judges."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SUITES = Path(__file__).parent / "suites"
sys.path.insert(0, str(SUITES))

from table import kept_rows, rows  # noqa: E402
from verdict import Judged, Rule, Theirs, Verdict, judge  # noqa: E402

NAMES = ("llama.cpp", "vLLM")
THEIRS = Theirs(
    {"/props": "its settings"},
    (Rule("a.py::fails", "other text", "its text"), Rule("a.py::luck", None, "what it writes")),
)
REFUSED = {"path": "/v1/x", "status": 400, "param": "grammar", "message": "grammar is not"}
NAMELESS = {"path": "/v1/messages", "status": 400, "message": "tools.0: no", "fields": ["tools"]}


def ended(test: str = "a.py::t", outcome: str = "failed", fault: str = "", *asked: Any) -> Any:
    return {"test": test, "outcome": outcome, "fault": fault, "asked": list(asked)}


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (ended(outcome="passed"), Verdict.PASSED),
        (ended("a.py::t", "passed", "", {"path": "/", "status": 500}), Verdict.FAULT),
        (ended("a.py::luck", "passed", "", {"path": "/", "status": 500}), Verdict.FAULT),
        (ended("a.py::t", "passed", "", {"path": "/", "status": 503}), Verdict.PASSED),
        (ended("a.py::t", "failed", "x", REFUSED), Verdict.REFUSED),
        (ended("a.py::t", "failed", "x", REFUSED, {"path": "/", "status": 200}), Verdict.FAULT),
        (ended("a.py::t", "failed", "x", REFUSED | {"param": None}), Verdict.FAULT),
        (ended("a.py::t", "failed", "x", REFUSED | {"status": 200}), Verdict.FAULT),
        (ended("a.py::t", "failed", "x", NAMELESS), Verdict.REFUSED),
        (ended("a.py::t", "failed", "x", NAMELESS | {"fields": []}), Verdict.FAULT),
        (ended("a.py::t", "failed", "x", {"path": "/props", "status": 404}), Verdict.THEIRS),
        (ended("a.py::t", "failed", "x", {"path": "/props", "status": 200}), Verdict.FAULT),
        (ended("a.py::t", "failed", "x", {"path": "/other", "status": 404}), Verdict.FAULT),
        (ended("a.py::fails", "failed", "some other text"), Verdict.THEIRS),
        (ended("a.py::fails", "failed", "Timeout"), Verdict.FAULT),
        (ended("a.py::fails", "passed"), Verdict.PASSED),
        (ended("a.py::luck", "passed"), Verdict.THEIRS),
        (ended("a.py::luck", "failed", "anything"), Verdict.THEIRS),
        (ended("a.py::t", "skipped", "slow"), Verdict.THEIRS),
        (ended("a.py::t", "failed", "Timeout"), Verdict.FAULT),
    ],
)
def test_a_verdict_follows_from_what_was_asked_and_how_it_failed(record, verdict) -> None:
    assert judge(record, THEIRS).verdict is verdict


def test_cases_that_end_alike_are_one_row_with_their_number() -> None:
    judged = [Judged(f"a.py::t[{i}]", Verdict.PASSED) for i in range(3)]
    judged.append(Judged("a.py::t[3]", Verdict.REFUSED, "`n|m` at 0x7fab"))
    assert rows(judged) == [
        "| `a.py::t` | 3 | passed |  |",
        "| `a.py::t` | 1 | refused by name | `n\\|m` at 0x |",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_has_every_suite_and_no_fault(name) -> None:
    kept = kept_rows(name)
    assert len(kept) > 50
    assert not [row for row in kept if Verdict.FAULT in row]
    Theirs.of(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_peers_suite_ends_as_the_table_says(name) -> None:
    done = subprocess.run(
        [sys.executable, SUITES / "run.py", name], capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
