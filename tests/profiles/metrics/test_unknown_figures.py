"""What nobody knows is said to be unknown: it is no number, and not the best one."""

import json
import math
from typing import Any

import pytest

from nemotrt.profiles.load.targets.server_metrics import Scrape, ServerMetrics, parse_metrics
from nemotrt.profiles.runs.metrics import evaluation
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.record.result import RequestRecord, write_result
from support.simulated_run import simulate


def view(requests: tuple[RequestRecord, ...], **fields: Any) -> RunView:
    return RunView(requests, (), 0.0, 10.0, None, **fields)


def request(arrivals_s: tuple[float, ...], arrival_tokens: tuple[int, ...]) -> RequestRecord:
    return RequestRecord(
        index=0, phase="measured", isl=8, osl=sum(arrival_tokens), due_s=0.0, sent_s=0.0,
        admitted_s=None, ended_s=arrivals_s[-1], arrivals_s=arrivals_s,
        arrival_tokens=arrival_tokens, finish_reason="length", error="",
    )  # fmt: skip


def test_goodput_of_answers_in_one_piece_is_not_known() -> None:
    """Eight tokens in one response may have taken any time each."""
    slos = {"tpot_ms": 50.0}
    whole = evaluation.evaluate(view((request((1.0,), (8,)),), slos=slos))["goodput_requests_per_s"]
    assert whole.value is None
    assert "at least 2 responses" in (whole.not_computable or "")
    single = evaluation.evaluate(view((request((1.0,), (1,)),), slos=slos))
    assert single["goodput_requests_per_s"].value == pytest.approx(0.1)


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_not_computable(figure: float, tmp_path: Any) -> None:
    found = evaluation.evaluate(view((), server_batch_size=figure))["server_batch_size"]
    assert found.value is None
    assert "no numbers" in (found.not_computable or "")
    run = simulate(1)
    run.metrics["server_batch_size"] = found
    write_result(run, tmp_path / "result.json")

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)


def test_a_page_that_says_nan_is_no_sample() -> None:
    """A Prometheus summary without observations is NaN."""
    page = 'vllm:num_requests_running NaN\nother 3\nother{a="b"} +Inf\n'
    assert parse_metrics(page) == {"other": 3.0}
    metrics = ServerMetrics(("http://x",), scrapes=[Scrape(1.0, parse_metrics(page))])
    assert metrics.batch_size(0.0, 2.0) is None
