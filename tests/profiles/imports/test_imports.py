"""Other tools' results: one run, written as they write it, must give the metrics of our own."""

import itertools
import json

import pytest

from nemotrt.errors import ArtefactError
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import TargetOptions
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.run_folder import read_run


@pytest.fixture
def own(scripted):
    workload = Workload(16, 10, 12, concurrency=3, num_warmup=3)
    options = TargetOptions(tokenizer="tiny-dense", extra={"script": {"ttft_ms": 20, "itl_ms": 4}})
    for _ in range(
        5
    ):  # users in step is what the windows are compared by: not so on a busy machine
        result = measure.run(open_target(scripted.url, workload, options), workload)
        assert result.status == "complete"
        if result.metric("itl_ms", "p99") < 8 and result.metric("ttft_ms", "p99") < 30:
            break
    return result


def as_vllm(result):
    measured = [r for r in result.requests if r.phase == "measured"]
    return {
        "model_id": "m",
        "max_concurrency": 3,
        "output_throughput": 1.0,
        "input_lens": [r.isl for r in measured],
        "output_lens": [r.osl for r in measured],
        "ttfts": [r.arrivals_s[0] - r.due_s for r in measured],
        "itls": [[b - a for a, b in itertools.pairwise(r.arrivals_s)] for r in measured],
        "start_times": [5000 + r.due_s for r in measured],
        "errors": [""] * len(measured),
    }


def as_aiperf(request, error=None):
    gaps = [1e3 * (b - a) for a, b in itertools.pairwise(request.arrivals_s)]
    return {
        "metadata": {
            "request_start_ns": 1_700_000_000_000_000_000 + round(1e9 * request.due_s),
            "benchmark_phase": "warmup" if request.phase == "warm-up" else "profiling",
            "was_cancelled": False,
        },
        "metrics": {
            "input_sequence_length": {"value": request.isl, "unit": "tokens"},
            "output_sequence_length": {"value": request.osl, "unit": "tokens"},
            "time_to_first_token": {
                "value": 1e3 * (request.arrivals_s[0] - request.due_s),
                "unit": "ms",
            },
            "inter_chunk_latency": {"value": gaps, "unit": "ms"},
        },
        "error": error,
    }


def agree(imported, own, phases):
    assert imported.status == "complete"
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_latency_ms", "tokens_per_s_per_user"):
        for statistic in ("mean", "p50", "p99"):
            found = imported.metric(name, statistic)
            assert found == pytest.approx(own.metric(name, statistic), rel=1e-3), name
    # the rate is that of our own arrivals in their window, which ends as the load runs down
    start_s, end_s = imported.window_s
    origin_s = min(r.due_s for r in own.requests if r.phase in phases)
    arrivals = [a - origin_s for r in own.requests if r.phase in phases for a in r.arrivals_s]
    count = sum(start_s - 1e-6 < at_s <= end_s + 1e-6 for at_s in arrivals)
    rate = imported.metric("tokens_per_s")
    # Users in step put up to 3 responses within a rounding of either edge.
    assert rate == pytest.approx(count / (end_s - start_s), abs=6.1 / (end_s - start_s))
    assert imported.workload.concurrency == 3


def test_vllm_bench(own, tmp_path):
    path = tmp_path / "vllm.json"
    path.write_text(json.dumps(as_vllm(own)))
    agree(read_run(path), own, ("measured",))
    path.write_text(json.dumps({"output_throughput": 5}))
    with pytest.raises(ArtefactError, match="--save-detailed"):
        read_run(path)


def test_aiperf(own, tmp_path):
    path = tmp_path / "profile_export.jsonl"
    requests = [r for r in own.requests if r.phase != "cool-down"]
    path.write_text("".join(json.dumps(as_aiperf(r)) + "\n" for r in requests))
    agree(read_run(tmp_path), own, ("measured", "warm-up"))
    failed = as_aiperf(requests[-1], error={"code": 499, "message": "gone"})
    path.write_text(json.dumps(as_aiperf(requests[-2])) + "\n" + json.dumps(failed) + "\n")
    result = read_run(path)
    assert result.status == "failed"
    assert "1 of 2 requests failed: gone" in result.reason
    path.write_text("{}\n")
    with pytest.raises(ArtefactError, match="no AIPerf export"):
        read_run(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"output_lens": [0, 4], "ttfts": [0.0, 0.1], "itls": [[], [0.1] * 3]}, "no token came"),
        ({"errors": ["boom", ""]}, "boom"),
    ],
)
def test_an_answer_without_a_token_has_failed(changes, reason, tmp_path):
    """vLLM's benchmark writes a length of 0 and a time to first token of 0 for it."""
    path = tmp_path / "vllm.json"
    path.write_text(json.dumps({**TWO, **changes}))
    result = read_run(path)
    assert (result.status, reason in result.reason) == ("failed", True)
    assert [request.is_complete for request in result.requests] == [False, True]
    assert result.metric("ttft_ms") == pytest.approx(100), "of the request that was answered"


TWO = {
    "output_throughput": 1.0,
    "input_lens": [8, 8],
    "output_lens": [4, 4],
    "ttfts": [0.1, 0.1],
    "itls": [[0.1] * 3, [0.1] * 3],
    "start_times": [0.0, 0.0],
}


@pytest.mark.parametrize(
    "changes",
    [
        {"ttfts": [float("nan"), 0.1]},
        {"itls": [[0.1, -1.0], [0.1]]},
        {"start_times": [float("inf"), 0.0]},
        {"output_lens": ["4", None]},
        {"ttfts": "no list"},
        {"itls": [None, None]},
    ],
)
def test_times_that_are_none_are_refused(changes, tmp_path):
    path = tmp_path / "vllm.json"
    path.write_text(json.dumps({**TWO, **changes}))
    with pytest.raises(ArtefactError):
        read_run(path)


def test_an_aiperf_record_of_no_token_has_failed(own, tmp_path):
    lines = [as_aiperf(r) for r in own.requests if r.phase == "measured"]
    lines[0]["metrics"]["output_sequence_length"]["value"] = 0
    path = tmp_path / "profile_export.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = read_run(path)
    assert result.status == "failed"
    assert "no token came back" in result.reason
