"""Metrics against a server whose timings are known: what it logged on the same clock."""

import re

import numpy as np
import pytest

from nemotrt.profiles.load.http.http_client import HttpClient
from nemotrt.profiles.load.prompts import PromptMaker
from nemotrt.profiles.load.targets.triton_http import TritonHttpTarget
from nemotrt.profiles.load.workload import Language, Workload
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.record.result import ProfileResult


def profile(scripted, tokenizer, workload: Workload, **script) -> ProfileResult:
    maker = PromptMaker(tokenizer, Language.MIXED, workload.seed)
    client = HttpClient(scripted.url, stall_timeout_s=script.pop("stall_timeout_s", 10))
    target = TritonHttpTarget(client, maker, extra={"script": script})
    return measure.run(target, workload)


@pytest.mark.parametrize(
    ("streams", "itl_ms"), [(1, 5), (32, 10), pytest.param(256, 40, marks=pytest.mark.slow)]
)
def test_every_metric_is_what_the_server_did(scripted, tokenizer, streams, itl_ms):
    """One run of three must be right: other work on the machine delays both sides."""
    misses = []
    for seed in range(3):
        misses = compare(scripted, tokenizer, streams, itl_ms, seed)
        if not misses:
            return
    pytest.fail(f"found, logged by the server: {misses}")


def compare(scripted, tokenizer, streams, itl_ms, seed):
    """Return what is off: statistics by more than 2 ms and 1 %, the rate by more than 20 %.

    The tails are in benchmarks/profile_accuracy.py.
    """
    workload = Workload(
        isl=16,
        osl=12,
        num_requests=max(2 * streams, 4),
        concurrency=streams,
        num_warmup=streams,
        seed=seed,
    )
    result = profile(scripted, tokenizer, workload, ttft_ms=20, itl_ms=itl_ms)
    assert result.status == "complete", result.reason
    by_tag = {entry["tag"]: entry for entry in scripted.log()["requests"]}
    maker = PromptMaker(tokenizer, Language.MIXED, seed)
    logs = [
        by_tag[maker.text(r.index, 16).text[:12]] for r in result.requests if r.phase == "measured"
    ]
    sends = np.array([entry["sends_s"] for entry in logs]) * 1e3
    assert result.clock_start_s is not None
    sent_s = [r.sent_s + result.clock_start_s for r in result.requests if r.phase == "measured"]
    starts = np.array(sent_s) * 1e3
    read = np.array([entry["start_s"] for entry in logs]) * 1e3
    before_ms = (read - starts).min()  # sent when it says: just before it was read
    assert before_ms > -0.001
    misses = [] if before_ms < 2.0 else [("sent", before_ms, 2.0)]
    truth = {
        "ttft_ms": sends[:, 0] - starts,
        "tpot_ms": (sends[:, -1] - sends[:, 0]) / 11,
        "itl_ms": np.diff(sends, axis=1).ravel(),
        "e2e_latency_ms": sends[:, -1] - starts,
    }
    # one user's tokens a second: 12 tokens in 20 ms and 11 gaps
    ideal = streams * 12 / (0.020 + 11 * itl_ms / 1e3)
    if result.metric("tokens_per_s") != pytest.approx(ideal, rel=0.2):
        misses.append(("tokens_per_s", result.metric("tokens_per_s"), ideal))
    assert result.metric("driver_cpu_us_per_token") > 0
    for name, samples in truth.items():
        found, expected = result.metrics[name].statistics, float(np.median(samples))
        assert found is not None
        assert found.count == samples.size
        if found.p50 != pytest.approx(expected, rel=0.01, abs=2.0):
            misses.append((name, found.p50, expected))
    return misses


def test_the_load_is_full_until_the_last_measured_request_ends(scripted, tokenizer):
    workload = Workload(isl=16, osl=10, num_requests=9, concurrency=4, num_warmup=4)
    result = profile(scripted, tokenizer, workload, ttft_ms=10, itl_ms=5)
    assert result.window_s is not None
    start_s, end_s = result.window_s
    for at_s in np.linspace(start_s + 1e-4, end_s - 1e-4, 50):
        live = [r for r in result.requests if r.due_s <= at_s and (r.ended_s or 1e9) > at_s]
        # a user is between two requests for less than a millisecond
        assert 3 <= len(live) <= 4
    assert sum(r.phase == "measured" for r in result.requests) == 9
    assert [r.osl for r in result.requests[:4]] == [2, 5, 8, 10]


def test_prompts_have_the_exact_length_and_differ(tokenizer):
    maker = PromptMaker(tokenizer, Language.MIXED, 3)
    texts = [maker.text(index, 100) for index in range(6)]
    assert all(len(tokenizer.encode(prompt.text)) == 100 for prompt in texts)
    assert len({prompt.text[:12] for prompt in texts}) == 6
    assert any("\u3040" < letter < "\u30ff" for letter in texts[1].text)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"fault": "short"}, "brought 4 tokens in 4 responses where 12 were asked for"),
        ({"fault": "truncate"}, "closed the connection before the end"),
        ({"fault": "die"}, "closed the connection before the end"),
        ({"fault": "error"}, "boom"),
        ({"fault": "not-json"}, "not JSON"),
        ({"fault": "refuse"}, "answered 503: .*queue size"),
        ({"fault": "stall", "stall_timeout_s": 0.3}, "sent nothing for 0.3 s"),
        ({"num_input_tokens": 17}, "read 17 prompt tokens where 16 were meant"),
        (
            {"tokens_per_response": 3, "reports": "none", "fault": "short"},
            "brought 6 tokens in 2 responses where 12 were asked for, by the tokenizer's count",
        ),
    ],
)
def test_a_server_that_fails_fails_the_run(scripted, tokenizer, script, reason):
    workload = Workload(isl=16, osl=12, num_requests=4, concurrency=2, num_warmup=0)
    result = profile(scripted, tokenizer, workload, **script)
    assert result.status == "failed"

    assert re.search(reason, result.reason)


@pytest.mark.parametrize("reports", ["total", "each", "last"])
def test_coalesced_responses_count_by_what_the_server_reports(scripted, tokenizer, reports):
    workload = Workload(isl=16, osl=12, num_requests=3, num_warmup=0)
    result = profile(scripted, tokenizer, workload, tokens_per_response=3, reports=reports)
    assert result.status == "complete", result.reason
    measured = [r for r in result.requests if r.phase == "measured"]
    assert all(r.arrival_tokens == (3, 3, 3, 3) for r in measured)
    assert result.metrics["itl_ms"].statistics.count == 9
    [note] = [note for note in result.notes if "itl_ms" in note]
    assert "held 3.0 tokens on average" in note


def test_coalesced_responses_leave_ttft_and_the_time_of_a_token_right(scripted, tokenizer):
    """6 tokens every 30 ms, after 40 ms: 5 ms each, as if each had come alone."""
    workload = Workload(isl=16, osl=36, num_requests=4, num_warmup=0)
    script = {"ttft_ms": 40, "itl_ms": 30, "tokens_per_response": 6, "reports": "each"}
    for _ in range(6):  # other work on the machine delays both sides
        found = profile(scripted, tokenizer, workload, **script).metrics
        p50 = [found[name].statistics.p50 for name in ("ttft_ms", "tpot_ms", "itl_ms")]
        if p50 == pytest.approx([40, 5, 30], rel=0.1):
            break
    assert p50 == pytest.approx([40, 5, 30], rel=0.1)


def test_a_token_in_each_response_needs_no_note(scripted, tokenizer):
    result = profile(scripted, tokenizer, Workload(isl=16, osl=6, num_requests=2, num_warmup=0))
    assert not [note for note in result.notes if "itl_ms" in note]


def test_an_answer_of_one_token_has_no_tpot(scripted, tokenizer):
    workload = Workload(isl=16, osl=1, num_requests=3, num_warmup=0)
    result = profile(scripted, tokenizer, workload)
    metric = result.metrics["tpot_ms"]
    assert metric.value is None
    assert metric.statistics is None
    assert "osl >= 2" in (metric.not_computable or "")


def test_metrics_by_hand():
    """Two requests of 3 tokens, one window: numbers one can check in the head."""
    from nemotrt.profiles.runs.metrics.catalogue import METRICS
    from nemotrt.profiles.runs.metrics.metric import NotComputableError
    from nemotrt.profiles.runs.metrics.run_view import RunView
    from nemotrt.profiles.runs.record.result import RequestRecord

    def request(index, due_s, arrivals_s):
        return RequestRecord(
            index=index,
            phase="measured",
            isl=10,
            osl=3,
            due_s=due_s,
            sent_s=due_s,
            admitted_s=None,
            ended_s=arrivals_s[-1],
            arrivals_s=arrivals_s,
            arrival_tokens=(1, 1, 1),
            finish_reason="length",
            error="",
        )

    requests = (request(0, 0.0, (0.1, 0.2, 0.3)), request(1, 1.0, (1.3, 1.4, 2.0)))
    view = RunView(requests, (), 0.0, 2.0, driver_cpu_s=0.0006, slos={"ttft_ms": 200.0})
    values, absent = {}, set()
    for metric in METRICS:
        try:
            values[metric.name] = metric.samples(view)
        except NotComputableError:
            absent.add(metric.name)
    assert absent == {
        "queue_ms",
        "batch_occupancy",
        "server_queue_ms",
        "server_batch_size",
        "sessions_per_s",
        "warm_ttft_ms",
        "cold_ttft_ms",
        "cached_tokens",
        "cached_share",
        "tokens_per_s_per_gpu",
        "gpu_power_w",
        "energy_j",
        "joules_per_token",
    }
    assert values["ttft_ms"] == pytest.approx([100, 300])
    assert values["tpot_ms"] == pytest.approx([100, 350])
    assert values["itl_ms"] == pytest.approx([100, 100, 100, 600])
    assert values["e2e_latency_ms"] == pytest.approx([300, 1000])
    assert values["tokens_per_s"] == pytest.approx([3.0])
    assert values["prompt_tokens_per_s"] == pytest.approx([10.0])
    assert values["requests_per_s"] == pytest.approx([1.0])
    assert values["goodput_requests_per_s"] == pytest.approx([0.5])
    assert values["tokens_per_s_per_user"] == pytest.approx([10.0, 3.0])
    assert values["driver_cpu_us_per_token"] == pytest.approx([100.0])
