"""The planner beside a run, and a server's own metrics."""

import math

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from nemotrt.profiles.command import profile
from nemotrt.profiles.load.targets.server_metrics import (
    QUEUE_HISTOGRAMS_MS,
    WANTED,
    Scrape,
    ServerMetrics,
    parse_metrics,
)
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.planning.answers.options import DeploymentOptions
from nemotrt.profiles.runs.record.prediction import predict, try_predict
from nemotrt.profiles.runs.record.result import read_result

CLAIM = Workload(8192, 16384, 16, concurrency=8)


def test_the_prediction_is_the_planners():
    """8 sequences of Nano-9B on an A10G at 8k/16k: 156.42 tokens/s published."""
    found = predict(DeploymentOptions("nemotron-nano-9b-v2", "a10g"), CLAIM)
    assert found.tokens_per_s_low < 156.42 < found.tokens_per_s_high
    assert found.tokens_per_s == pytest.approx(156.42, rel=0.2)
    parts = sum(ms for name, ms in found.decode_step_ms.items() if name != "total")
    assert parts == pytest.approx(found.decode_step_ms["total"])


def test_no_prediction_is_a_sentence():
    found, why = try_predict(DeploymentOptions("nemotron-nano-12b-v2", "a10g"), CLAIM)
    assert found is None
    assert why.startswith("No prediction: ")


def test_a_run_shows_the_prediction(engine_folder, tmp_path):
    args = [str(engine_folder), "-o", str(tmp_path / "run"), "--isl", "8", "--osl", "4", "-n", "2"]
    done = CliRunner().invoke(profile, [*args, "--predict", "a10g"])
    assert done.exit_code == 0, done.output
    assert "predicted for dense on a10g" in done.stdout
    result = read_result(tmp_path / "run")
    assert result.prediction is not None
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The planner&#39;s prediction beside it" in page or "prediction beside it" in page
    assert "Predicted decode step, batch 1" in page


def exposition(waits_s):
    registry = CollectorRegistry()
    queue = Histogram("nemotrt_queue_seconds", "x", ("outcome",), registry=registry)
    for wait_s in waits_s:
        queue.labels("stop").observe(wait_s)
        queue.labels("length").observe(wait_s)
    return generate_latest(registry).decode()


def test_a_histograms_mean_over_the_window():
    """1 s waits before the window, 0.2 and 0.4 s in it."""
    texts = [exposition([1.0, 1.0]), exposition([1.0, 1.0, 0.2, 0.4])]
    scrapes = [Scrape(t, parse_metrics(x)) for t, x in zip((1, 9), texts, strict=True)]
    server = ServerMetrics(("-",), scrapes=scrapes)
    assert server.histogram_mean(QUEUE_HISTOGRAMS_MS, 1.2, 8.8) == pytest.approx(300)
    assert server.histogram_mean(QUEUE_HISTOGRAMS_MS, 1.0, 1.1) is None


def test_other_servers_tell_their_batch_by_a_gauge():
    """Looks at 1, 2 and 3 s; the window holds the last two."""

    def exposed(name, labels, running):
        registry = CollectorRegistry()
        gauge = Gauge(name, "x", tuple(labels), registry=registry)
        gauge.labels(**labels).set(running)
        return generate_latest(registry).decode()

    for name, labels in (
        ("vllm:num_requests_running", {"model_name": "m"}),
        ("nv_trt_llm_request_metrics", {"model": "m", "request_type": "scheduled"}),
    ):
        looks = [(1, 9), (2, 4), (3, 6)]
        scrapes = [Scrape(at_s, parse_metrics(exposed(name, labels, n))) for at_s, n in looks]
        server = ServerMetrics(("-",), scrapes=scrapes)
        assert server.batch_size(1.5, 3.5) == pytest.approx(5)


def test_a_server_without_metrics_is_noted(scripted, tmp_path):
    args = [scripted.url, "--tokenizer", "tiny-dense", "--isl", "16", "--osl", "4", "-n", "2"]
    args += ["--metrics-url", f"{scripted.url}/metrics", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(profile, args)
    assert done.exit_code == 0, done.output
    assert "No server metrics" in done.stdout
    assert "answered 404" in done.stdout


PAGE = r"""
# HELP vllm:num_requests_running Requests that run. # of them
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="a } b \"c\" \\",engine="0"} 3 1700000000000
vllm:num_requests_running{model_name="request_type=\"scheduled\" 9",engine="1"} 4
# TYPE nemotrt_queue_seconds histogram
nemotrt_queue_seconds_bucket{outcome="stop",le="+Inf"} 7 # {trace_id="a } 1"} 0.2 1700000000.5
nemotrt_queue_seconds_count{outcome="stop"} 7 # {trace_id="a"} 0.2 1700000000.5
nemotrt_queue_seconds_sum 1.5 # {trace_id="a"} 0.2
nv_trt_llm_request_metrics{request_type="scheduled",model="a\nb"} 2
this line is none
broken{b="c", ="x"} 1
process_cpu_seconds_total 12.5
"""


def test_labels_exemplars_and_timestamps_are_read_by_prometheus_own_parser():
    assert parse_metrics(PAGE) == {
        "vllm:num_requests_running": 7.0,
        "nemotrt_queue_seconds_count": 7.0,
        "nemotrt_queue_seconds_sum": 1.5,
        "nv_trt_llm_request_metrics:scheduled": 2.0,
        "process_cpu_seconds_total": 12.5,
    }


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=12), st.floats(0, 1e9))
def test_any_label_value_is_summed_over(label, level):
    registry = CollectorRegistry()
    gauge = Gauge("vllm:num_requests_running", "x", ("model_name",), registry=registry)
    gauge.labels(label).set(level)
    gauge.labels("-" + label).set(1.0)
    page = generate_latest(registry).decode()
    assert parse_metrics(page, WANTED) == pytest.approx({"vllm:num_requests_running": level + 1})


@settings(deadline=None)
@given(st.text(st.sampled_from('ab{}=",\\ \t#0_e+.\n'), max_size=30))
def test_a_page_of_any_text_has_numbers_or_none(text):
    assert all(math.isfinite(value) for value in parse_metrics(text).values())
