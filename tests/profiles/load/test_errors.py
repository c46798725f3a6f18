"""Requests that fail: they are counted by kind, leave no figure, and end no run that may go on."""

import json
from email.utils import formatdate

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.errors import ConfigError
from nemotrt.profiles.command import profile
from nemotrt.profiles.load.exchange import Ending
from nemotrt.profiles.load.http.http_client import _seconds, ending_of
from nemotrt.profiles.load.prompts import PromptMaker
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import TargetOptions
from nemotrt.profiles.load.workload import ErrorLimit, Language, Workload
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.measure import Observers
from nemotrt.profiles.runs.record.endings import count_endings, error_rate, errors_text
from nemotrt.profiles.runs.record.journal import read_journal
from nemotrt.profiles.runs.record.result import RequestRecord, read_result
from nemotrt.profiles.verdict.judge import judge
from support.simulated_run import simulate

SMALL = {"isl": 16, "osl": 12, "num_requests": 12, "num_warmup": 0}


def run(url, script, observers=None, extra=None, **changes):
    workload = Workload(**(SMALL | changes))
    options = TargetOptions(
        tokenizer="tiny-dense", extra={"script": script, **(extra or {})}, stall_timeout_s=3.0
    )
    return measure.run(open_target(url, workload, options), workload, observers)


def measured(result):
    return [r for r in result.requests if r.phase == "measured"]


KINDS = {
    "429": Ending.REFUSED,
    "refuse": Ending.REFUSED,
    "400": Ending.REJECTED,
    "500": Ending.SERVER_ERROR,
    "error": Ending.SERVER_ERROR,
    "disconnect": Ending.DISCONNECTED,
    "truncate": Ending.DISCONNECTED,
    "stall": Ending.STALLED,
    "not-json": Ending.MALFORMED,
    "no-done": Ending.MALFORMED,
    "no-finish": Ending.MALFORMED,
    "short": Ending.WRONG_LENGTH,
}


@pytest.mark.parametrize("is_told", [True, False])
def test_one_of_each_kind_ends_no_run(scripted, tokenizer, is_told):
    """Whole answers between faults, some of several tokens at once: only answers have figures.

    The tokens of a response are what the server tells, or else what the tokenizer counts.
    """
    mix = [fault for kind in KINDS for fault in ("", kind)]
    script = {"mix": mix, "chunks": [1, 3, 2], "ttft_ms": 3, "itl_ms": 1}
    script |= {"reports": "each"} if is_told else {}
    result = run(
        f"{scripted.url}/v1",
        script,
        extra={} if is_told else {"stream_options": None},
        num_requests=24,
        max_errors=ErrorLimit(0.5),
    )
    assert result.status == "complete", result.reason
    by_fault = dict(zip(mix[1::2], measured(result)[1::2], strict=True))
    assert {fault: r.ending for fault, r in by_fault.items()} == KINDS
    assert {r.ending for r in measured(result)[::2]} == {Ending.SUCCESS}
    assert {r.arrival_tokens for r in measured(result)[::2]} == {(1, 3, 2, 1, 3, 2)}
    assert sum(result.endings.values()) == 24 and result.endings[Ending.SUCCESS] == 12
    assert result.metric("error_rate") == 0.5
    for name in ("ttft_ms", "tpot_ms", "e2e_latency_ms"):
        found = result.metrics[name].statistics
        assert found is not None and found.count == 12, name
    # by hand: the tokens of the answers alone, over the window
    start_s, end_s = result.window_s
    arrivals = [
        (at_s, count)
        for r in result.requests
        if not r.error
        for at_s, count in zip(r.arrivals_s, r.arrival_tokens, strict=True)
    ]
    inside = sum(count for at_s, count in arrivals if start_s < at_s <= end_s)
    assert result.metric("tokens_per_s") == pytest.approx(inside / (end_s - start_s))
    # the server's own log, on the same clock: an arrival for each response that it wrote
    sends = {entry["tag"]: entry["sends_s"] for entry in scripted.log()["requests"]}
    maker = PromptMaker(tokenizer, Language.MIXED, 0)
    for request in measured(result)[::2]:
        written_s = sends[maker.text(request.index, 16).text[:12]]
        arrived_s = [at_s + result.clock_start_s for at_s in request.arrivals_s]
        assert len(arrived_s) == len(written_s) == 6
        # a write is logged after it: on a busy machine the client may be first to the clock
        assert min(a - w for a, w in zip(arrived_s, written_s, strict=True)) > -0.05
    assert (
        "12 of 24 measured requests (50.0%) were no success: 2 refused, 1 rejected"
        in (result.notes[0])
    )
    assert "Latencies are those of the 12 that were answered" in result.notes[0]
    assert any("--tokenizer counts" in note for note in result.notes) is not is_told


@pytest.mark.parametrize("kind", ["429", "500", "disconnect"])
@pytest.mark.parametrize("pace", [{"concurrency": 3}, {"requests_per_s": 100.0}])
def test_by_default_one_failure_ends_no_run(scripted, kind, pace):
    arrival = {"arrival": "poisson"} if "requests_per_s" in pace else {}
    result = run(scripted.url, {"mix": ["", kind, *[""] * 40]}, **pace, **arrival)
    assert result.status == "complete", result.reason
    assert len(measured(result)) == 12
    assert result.metric("error_rate") == pytest.approx(1 / 12)


@pytest.mark.parametrize(
    ("limit", "num_faults", "status"),
    [("0", 1, "failed"), ("2", 2, "complete"), ("2", 3, "failed"), ("25%", 3, "complete")],
)
def test_more_than_may_fail_the_run_and_name_the_first(scripted, limit, num_faults, status):
    mix = [*["500"] * num_faults, *[""] * 40]
    result = run(scripted.url, {"mix": mix}, max_errors=ErrorLimit.parsed(limit))
    assert result.status == status
    if status == "failed":
        assert f"of 12 measured ones --max-errors {limit} allows {num_faults - 1}" in result.reason
        assert "answered 500" in result.reason


def test_a_run_without_an_answer_has_failed(scripted):
    """Whatever may fail: there is nothing to report."""
    result = run(scripted.url, {"fault": "500"}, num_requests=3, max_errors=ErrorLimit(1.0))
    assert result.status == "failed"
    assert "allows 2" in result.reason


def test_a_refusal_that_is_sent_again_is_no_success(scripted):
    """Its latency counts from when it was first due; the server was asked to wait for 1 s."""
    script = {"mix": ["", "429", "", *[""] * 40], "retry_after": 1}
    result = run(scripted.url, script, num_requests=4, max_retries=1)
    assert result.status == "complete", result.reason
    retried = measured(result)[1]
    assert (retried.ending, retried.num_retries, retried.error) == (Ending.RETRIED, 1, "")
    assert 1e3 * (retried.arrivals_s[0] - retried.due_s) >= 1000
    assert result.metric("ttft_ms", "max") >= 1000
    assert result.metrics["ttft_ms"].statistics.count == 4
    assert result.metric("error_rate") == 0.25
    assert result.endings == {Ending.SUCCESS: 3, Ending.RETRIED: 1}
    assert not any("after they were due" in note for note in result.notes)


@pytest.mark.parametrize(
    ("script", "max_retries"),
    [
        ({"mix": ["429", *[""] * 40], "retry_after": 0}, 0),  # nobody asked for it
        ({"mix": ["429", *[""] * 40]}, 1),  # the server does not say when
        ({"mix": ["429", *[""] * 40], "retry_after": 3600}, 1),  # nobody waits for so long
        ({"mix": ["429", "429", *[""] * 40], "retry_after": 0}, 1),  # refused again
    ],
)
def test_what_is_not_sent_again(scripted, script, max_retries):
    result = run(scripted.url, script, num_requests=3, max_retries=max_retries)
    assert measured(result)[0].ending is Ending.REFUSED
    assert result.metric("error_rate") == pytest.approx(1 / 3)


def test_a_failed_turn_leaves_its_conversation_out(scripted):
    from nemotrt.profiles.load.workload import MadeSessions

    result = run(
        f"{scripted.url}/v1",
        {"mix": ["", "500", *[""] * 40]},
        num_requests=6,
        sessions=MadeSessions(3, 0, 0.0),
    )
    assert result.status == "complete", result.reason
    start_s, end_s = result.window_s
    assert result.metric("sessions_per_s") == pytest.approx(1 / (end_s - start_s))
    assert [turn.num_requests for turn in result.turns] == [2, 1, 2]


def test_the_journal_keeps_how_requests_ended(scripted, tmp_path):
    script = {"mix": ["429", "500", *[""] * 40], "retry_after": 0}
    observers = Observers(journal=tmp_path / "j")
    result = run(
        scripted.url, script, observers=observers, max_retries=1, max_errors=ErrorLimit(0.2)
    )
    _, lines = read_journal(tmp_path / "j")
    found = [RequestRecord.model_validate(line) for line in lines]
    told = {r.index: (r.ending, r.num_retries, r.error) for r in found}
    assert told == {r.index: (r.ending, r.num_retries, r.error) for r in result.requests}


def test_the_command_and_its_pages(scripted, tmp_path):
    script = json.dumps({"mix": ["", "500", *[""] * 60]})
    arguments = [f"{scripted.url}/v1", "--tokenizer", "tiny-dense", "--extra", f"script={script}"]
    arguments += ["--isl", "16", "--osl", "4", "-n", "6", "--warmup", "0", "-c", "1,2"]
    done = CliRunner().invoke(profile, [*arguments, "-o", str(tmp_path / "s")])
    assert done.exit_code == 0, done.output
    assert "1 of 6 measured requests (16.7%) were no success: 1 server error" in done.stdout
    assert "error_rate" in done.stdout
    page = (tmp_path / "s" / "c1" / "report.html").read_text()
    assert "1 of 6 measured requests (16.7%) were no success" in page
    assert "Error rate" in (tmp_path / "s" / "report.html").read_text()
    for flag, words in (("--max-errors", "101%"), ("--max-errors", "-1"), ("--max-errors", "x")):
        done = CliRunner().invoke(profile, [*arguments, flag, words, "--dry-run"])
        assert done.exit_code == 2 and "--max-errors" in done.output, words


def test_a_failed_point_ends_no_sweep(scripted, tmp_path):
    """Two users are refused by this server; the points of 1 and 3 are whole."""
    answers = [""] * (1 + 2)
    script = json.dumps({"mix": [*answers, *["429"] * 2, *[""] * 60]})
    arguments = [f"{scripted.url}/v1", "--tokenizer", "tiny-dense", "--extra", f"script={script}"]
    arguments += ["--isl", "16", "--osl", "4", "-n", "3", "--warmup", "0", "-c", "1,2,3"]
    arguments += ["--max-errors", "0", "-o", str(tmp_path / "s")]
    done = CliRunner().invoke(profile, arguments)
    assert done.exit_code == 1
    folders = {name: read_result(tmp_path / "s" / name).status for name in ("c1", "c2", "c3")}
    assert folders["c3"] == "complete"
    assert "failed" in folders.values()
    assert "the run of" in done.output


def test_a_server_that_is_gone_ends_the_sweep_with_what_there_is(scripted, tmp_path):
    script = json.dumps({"mix": [*[""] * 8, "die"], "ttft_ms": 1, "itl_ms": 1, "after": 1})
    arguments = [f"{scripted.url}/v1", "--tokenizer", "tiny-dense", "--extra", f"script={script}"]
    arguments += ["--isl", "16", "--osl", "4", "-n", "4", "--warmup", "0", "-c", "1,2,3"]
    done = CliRunner().invoke(profile, [*arguments, "-o", str(tmp_path / "s")])
    assert done.exit_code == 3 and "nothing answers" in done.output
    assert read_result(tmp_path / "s" / "c1").status == "complete"
    assert (tmp_path / "s" / "report.html").is_file()


def test_retries_are_refused_where_they_have_no_effect(engine_folder):
    workload = Workload(**SMALL, max_retries=1)
    for address in (str(engine_folder), "grpc://127.0.0.1:9"):
        with pytest.raises(ConfigError, match="--retries is for HTTP"):
            open_target(address, workload, TargetOptions(tokenizer="tiny-dense"))


def test_every_status_has_a_kind():
    found = {status: ending_of(status) for status in range(201, 600)}
    assert {s for s, ending in found.items() if ending is Ending.REFUSED} == {429, 503}
    assert all((found[s] is Ending.SERVER_ERROR) for s in range(500, 600) if s != 503)
    assert all(ending.is_error for ending in found.values())


@given(st.integers(0, 10**6))
def test_retry_after_is_seconds_or_a_date(seconds):
    assert _seconds(str(seconds)) == seconds
    at = formatdate(4e9 + seconds, usegmt=True)
    assert _seconds(at) == pytest.approx(4e9 + seconds - __import__("time").time(), abs=5)
    assert _seconds("") is None and _seconds("soon") is None


@given(st.integers(1, 500), st.integers(0, 100), st.integers(0, 500))
def test_a_limit_is_a_share_rounded_up_or_a_count(num_measured, percent, count):
    share = ErrorLimit.parsed(f"{percent}%")
    allowed = min(-(-percent * num_measured // 100), num_measured - 1)
    assert share.reason(allowed, num_measured, "x") == ""
    assert share.reason(allowed + 1, num_measured, "x").endswith("x")
    fixed = ErrorLimit.parsed(str(count))
    assert (fixed.reason(count, num_measured, "x") == "") is (count < num_measured)
    assert {ErrorLimit.parsed(str(limit)) for limit in (share, fixed)} == {share, fixed}


@given(st.lists(st.sampled_from(list(Ending)), min_size=1))
def test_every_ending_is_one_of_three(endings):
    """An answer, an error, or open; the rate is of those that ended, and says success alone."""
    records = [
        RequestRecord(
            index=i,
            phase="measured",
            isl=1,
            osl=1,
            due_s=0.0,
            sent_s=0.0,
            admitted_s=None,
            ended_s=None,
            arrivals_s=(),
            arrival_tokens=(),
            finish_reason="",
            error="x" if ending.is_error else "",
            ending=ending,
        )
        for i, ending in enumerate(endings)
    ]
    counts, ended = count_endings(records), [e for e in endings if e is not Ending.OPEN]
    assert all(e.is_answer + e.is_error + (e is Ending.OPEN) == 1 for e in endings)
    bad = sum(e is not Ending.SUCCESS for e in ended)
    assert error_rate(counts) == (pytest.approx(bad / len(ended)) if ended else None)
    assert (errors_text(counts) == "") is (bad == 0)


def test_an_older_record_tells_its_ending_by_what_it_has():
    values = {
        "index": 0,
        "phase": "measured",
        "isl": 1,
        "osl": 2,
        "due_s": 0.0,
        "sent_s": 0.0,
        "admitted_s": None,
        "ended_s": 1.0,
        "arrivals_s": (0.5, 1.0),
        "arrival_tokens": (1, 1),
        "finish_reason": "",
        "error": "",
    }
    assert RequestRecord.model_validate(values).ending is Ending.SUCCESS
    assert RequestRecord.model_validate(values | {"error": "x"}).ending is Ending.FAILED
    cut = values | {"arrivals_s": (0.5,), "arrival_tokens": (1,)}
    assert RequestRecord.model_validate(cut).ending is Ending.OPEN


def test_an_older_result_is_read_shown_and_compared(tmp_path):
    """It has neither endings nor an error rate; what its requests are says both."""
    text = simulate(1).model_dump_json()
    older = json.loads(text)
    older["metrics"].pop("error_rate")
    for name in ("endings", "machine_use"):
        older.pop(name)
    for request in older["requests"]:
        del request["ending"], request["num_retries"]
    for name in ("max_errors", "max_retries"):
        older["workload"].pop(name)
    for name, content in (("old", json.dumps(older)), ("new", text)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(content)
    folders = [str(tmp_path / name) for name in ("old", "new")]
    done = CliRunner().invoke(profile, ["report", *folders, "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    for both in (folders, folders[::-1]):
        done = CliRunner().invoke(profile, ["compare", *both, "--at-given-concurrency"])
        assert done.exit_code == 0 and "not distinguishable" in done.output, done.output


def test_other_error_rates_are_not_comparable(scripted):
    """A server that refuses a tenth of its load has less to do."""
    mix = [*["", "429"] * 2, *[""] * 60]
    refusing = run(scripted.url, {"mix": mix}, max_errors=ErrorLimit(0.5))
    whole = run(scripted.url, {})
    verdict = judge([refusing], [whole], 1.0, is_given_concurrency=True)
    assert "the error rates differ: 16.7% against 0.0%" in verdict.sentence
    same = judge([refusing], [refusing], 1.0, is_given_concurrency=True)
    assert not any("error rates" in reason for reason in same.reasons)
    assert any("no success: 2 refused" in caveat for caveat in same.caveats)
