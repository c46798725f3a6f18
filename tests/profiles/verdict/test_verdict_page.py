"""The page of a verdict: who is compared, by how much, and in what the two differ."""

import json
import re

from click.testing import CliRunner

from nemotrt.profiles.command import profile
from nemotrt.profiles.runs.record.result import write_result
from nemotrt.profiles.verdict.judge import Outcome, judge
from nemotrt.profiles.verdict.page import render_verdict
from support.simulated_run import simulate

NANO = {"kind": "simulated", "address": "-", "model": "nano", "precision": "bf16"}
QWEN = NANO | {"model": "qwen"}


def runs(target, speed=1.0, users=(2, 4)):
    return [simulate(n, users=n, per_user=4, osl=16, speed=speed, target=target) for n in users]


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_it_names_both_sides_the_ratio_and_the_target():
    ours, theirs = runs(NANO, 2.0), runs(QWEN)
    verdict = judge(ours, theirs, 6.3, is_given_concurrency=True)
    page = render_verdict(verdict, ours, theirs)
    text = text_of(page)
    assert "nano against qwen" in text and "Candidate nano" in text and "Baseline qwen" in text
    assert verdict.ratio is not None
    assert f"undecided within 10%, {verdict.ratio.low:.2f} to {verdict.ratio.high:.2f}" in text
    assert "a ratio of 6.3 is not met" in text and "claimed ratio" in text
    assert "candidate: nano" in text and "baseline: qwen" in text
    assert re.search(r"What differs.* model nano qwen", text)
    assert page.count('class="verdict bad"') == 1


def test_one_engine_against_itself_is_two_lines_still():
    old, new = runs(NANO), runs(NANO, 1.1)
    page = render_verdict(judge(new, old, 1.0, is_given_concurrency=True), new, old)
    assert "candidate: nano" in page and "baseline: nano" in page
    assert "Nothing that the runs tell of themselves." in page


def test_runs_of_two_engines_are_no_side():
    mixed = [*runs(NANO, users=(2,)), *runs(NANO | {"precision": "int8-wo"}, users=(4,))]
    for sides in ((mixed, runs(QWEN)), (runs(QWEN), mixed)):
        verdict = judge(*sides, 1.0, is_given_concurrency=True)
        assert verdict.outcome is Outcome.NOT_COMPARABLE
        assert any("different things: nano, bf16; nano, int8-wo" in r for r in verdict.reasons)


def test_the_command_names_them_in_print_json_and_page(tmp_path):
    for name, target in (("ours", NANO), ("theirs", QWEN | {"precision": "int8-wo"})):
        (tmp_path / name).mkdir()
        [run] = runs(target, users=(2,))
        write_result(run, tmp_path / name / "result.json")
    command = ["compare", str(tmp_path / "ours"), str(tmp_path / "theirs")]
    page = tmp_path / "verdict.html"
    printed = CliRunner().invoke(profile, [*command, "-o", str(page)]).output
    assert "candidate: nano\n" in printed and "baseline: qwen\n" in printed
    told = json.loads(CliRunner().invoke(profile, [*command, "--json"]).output)
    assert (told["candidate"], told["baseline"]) == ("nano", "qwen")
    assert told["differences"] == {"model": ["nano", "qwen"], "precision": ["bf16", "int8-wo"]}
    assert "nano against qwen" in page.read_text(encoding="utf-8")
