"""The loop between the queue and the scheduler, with a model that answers at once."""

import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.engines.runtime.request import Request
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.exporter.gpu_gauges import GAUGES
from nemotrt.serve.engine import loop as engine_loop
from nemotrt.serve.engine.admission import AdmissionQueue, QueueLimits
from nemotrt.serve.engine.delivery import Delivery
from nemotrt.serve.engine.kept_metrics import kept_text
from nemotrt.serve.engine.loop import EngineLoop
from nemotrt.serve.engine.submission import Submission, make_submission
from nemotrt.serve.engine.telemetry import Telemetry
from nemotrt.serve.processes.options import ChunkRate
from support.ahead_pipeline import Ahead


class Client:
    """Hears of its requests."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []
        self.is_done = threading.Event()

    def deliver(self, fields: dict[str, Any]) -> None:
        self.fields.append(fields)
        if fields.get("final"):
            self.is_done.set()

    @property
    def last(self) -> dict[str, Any]:
        assert self.is_done.wait(20)
        return self.fields[-1]


@pytest.fixture(params=["host", "ahead"], scope="session")
def opened(opened, request):
    """The engine, and the same as one that is a step ahead of its tokens."""
    if request.param == "host":
        yield opened
        return
    ahead = Ahead(opened.engine)
    yield replace(opened, engine=ahead)
    ahead.own.finish()


@pytest.fixture
def loop(opened):
    loop = EngineLoop(opened.scheduler(), QueueLimits())
    loop.start()
    yield loop
    loop.stop(0)
    loop.join()
    assert not loop.scheduler.running and not loop.scheduler.waiting


def submit(loop, opened, name="r", **inputs) -> tuple[Submission, Client]:
    client = Client()
    values = {"text_input": "The", "max_tokens": 8} | inputs
    submission = make_submission(name, values, opened, client, client.deliver)
    loop.submit(submission)
    return submission, client


def test_a_request_equals_its_solo_run(loop, opened, solo) -> None:
    _, client = submit(loop, opened)
    assert client.last["text_output"] == solo("The", max_tokens=8)["text"]


def test_streamed_pieces_join_to_the_same_text(loop, opened, solo) -> None:
    _, client = submit(loop, opened, stream=True, max_tokens=30)
    assert client.last["finish_reason"]
    text = "".join(fields.get("text_output", "") for fields in client.fields)
    assert text == solo("The", max_tokens=30)["text"]


def test_a_burst_fills_every_free_slot_before_the_next_step(opened, monkeypatch) -> None:
    loop = EngineLoop(opened.scheduler(), QueueLimits())
    sizes: list[int] = []
    step = loop.scheduler.step

    def spy() -> Any:
        updates = step()
        sizes.append(len(loop.scheduler.running))
        return updates

    monkeypatch.setattr(loop.scheduler, "step", spy)
    clients = [submit(loop, opened, f"r{n}", max_tokens=4 + n)[1] for n in range(8)]
    loop.stop(20)
    loop.start()
    assert all(client.last["text_output"] for client in clients)
    loop.join()
    assert max(sizes[:2]) == 8  # the first request alone woke the loop


def test_requests_that_wait_do_not_slow_the_streams_that_run(opened, monkeypatch) -> None:
    """The chunks of a second are shared among the running; 8 slots, 24 requests."""
    loop = EngineLoop(opened.scheduler(), QueueLimits(), rate=ChunkRate(100))
    intervals: list[float] = []
    fields = Delivery.fields

    def spy(self: Delivery, update: Any, now_s: float, interval_s: float) -> Any:
        intervals.append(interval_s)
        return fields(self, update, now_s, interval_s)

    monkeypatch.setattr(Delivery, "fields", spy)
    clients = [submit(loop, opened, f"r{number}", stream=True)[1] for number in range(24)]
    loop.start()
    assert all(client.last["finish_reason"] == "length" for client in clients)
    loop.stop(0)
    loop.join()
    assert max(intervals) == pytest.approx(8 / 100)


CPU_RATE = ChunkRate.of(None, is_cpu=True, num_cores=1)


@pytest.mark.parametrize("num_streams", [1, 4])
def test_few_streams_have_each_token_as_a_chunk_of_its_own(opened, monkeypatch, num_streams):
    """On one core, at 50 tokens/s each: faster than anybody reads."""
    loop = EngineLoop(opened.scheduler(), QueueLimits(), rate=CPU_RATE)
    step = loop.scheduler.step

    def at_50_per_s() -> Any:
        time.sleep(0.02)
        return step()

    monkeypatch.setattr(loop.scheduler, "step", at_50_per_s)
    inputs = {"stream": True, "max_tokens": 6, "ignore_eos": True, "return_output_ids": True}
    clients = [submit(loop, opened, f"r{number}", **inputs)[1] for number in range(num_streams)]
    loop.start()
    assert all(client.last["finish_reason"] == "length" for client in clients)
    loop.stop(0)
    loop.join()
    for client in clients:
        assert [len(fields["output_ids"]) for fields in client.fields] == [1] * 6


def test_the_chunks_of_many_streams_share_a_rate() -> None:
    assert [n / CPU_RATE.interval_s(n) for n in (1, 4, 5, 128)] == pytest.approx(
        [2000, 2000, 100, 100]
    )
    for is_cpu in (True, False):  # what is asked for holds for one stream too
        told = ChunkRate.of(7.0, is_cpu=is_cpu, num_cores=64)
        assert [n / told.interval_s(n) for n in (1, 128)] == pytest.approx([7, 7])
    many_cores = ChunkRate.of(None, is_cpu=True, num_cores=192)
    assert many_cores == ChunkRate.of(None, is_cpu=False, num_cores=2) == ChunkRate()


def test_a_cancelled_request_frees_its_slot_before_the_next_step(opened) -> None:
    loop = EngineLoop(opened.scheduler(), QueueLimits())
    client = Client()
    values = {"text_input": "The", "max_tokens": 500, "ignore_eos": True, "stream": True}
    loop.submit(make_submission("r", values, opened, client, client.deliver))
    steps = iter(range(1000))

    def before_each_step() -> None:
        if next(steps) == 5:
            loop.cancel("r")
            used_at_cancel.append(loop.num_steps)

    used_at_cancel: list[int] = []
    loop._flush = before_each_step
    loop.start()
    assert client.last["finish_reason"] == "cancelled"
    assert not loop.scheduler.running
    assert loop.num_steps - used_at_cancel[0] <= 1
    loop.stop(0)
    loop.join()


def test_an_owner_that_goes_takes_its_requests_along(loop, opened) -> None:
    clients = []
    for number in range(12):
        _, client = submit(loop, opened, str(number), max_tokens=900, ignore_eos=True)
        clients.append(client)
    for client in clients:
        loop.cancel_all(client)
    assert {client.last["finish_reason"] for client in clients} == {"cancelled"}


def test_stopping_refuses_what_is_new_and_ends_what_is_old(opened) -> None:
    loop = EngineLoop(opened.scheduler(), QueueLimits())
    loop.start()
    _, old = submit(loop, opened, "old", max_tokens=900, ignore_eos=True)
    time.sleep(0.1)
    loop.stop(0.2)
    _, new = submit(loop, opened, "new")
    assert old.last["error"]["code"] == new.last["error"]["code"] == "shutting_down"
    loop.join()


def test_the_queue_goes_by_priority_then_arrival(opened) -> None:
    queue = AdmissionQueue(QueueLimits(max_queue_size=4))
    base = make_submission("x", {"text_input": "x"}, opened, None, lambda fields: None)
    for name, priority in (("a", 1), ("b", 0), ("c", -5), ("d", 0)):
        inputs = replace(base.inputs, priority=priority)
        queue.push(replace(base, request=Request(name, (1,)), inputs=inputs))
    assert queue.is_full
    assert queue.age_s(base.submitted_s + 2.5) == pytest.approx(2.5)
    assert [queue.pop().request.request_id for _ in range(4)] == ["c", "b", "d", "a"]


def test_metrics_count_and_time(loop, opened) -> None:
    _, client = submit(loop, opened)
    assert client.last
    text = loop.telemetry.text(loop.gauges())
    assert 'nemotrt_requests_total{outcome="length"} 1.0' in text
    assert "nemotrt_output_tokens_total 8.0" in text
    assert "nemotrt_ttft_seconds_count 1.0" in text
    assert "nemotrt_slots 8.0" in text


def output_tokens(loop: EngineLoop) -> float:
    text = loop.telemetry.text(loop.gauges())
    return float(re.search(r"^nemotrt_output_tokens_total (\S+)$", text, re.MULTILINE).group(1))


def test_output_tokens_are_counted_as_they_come(opened) -> None:
    """At each step the counter has what clients have; a request's end adds nothing of its own."""
    counts: list[tuple[float, int]] = []
    loop = EngineLoop(
        opened.scheduler(),
        QueueLimits(),
        lambda: counts.append((output_tokens(loop), sum(c.num_tokens for c in clients))),
        rate=ChunkRate(1e9, 1e9),
    )
    clients = [Counting() for _ in range(3)]
    for number, client in enumerate(clients):
        inputs = {"text_input": "The", "max_tokens": 20, "ignore_eos": True, "stream": True}
        inputs |= {"return_output_ids": True}
        name = str(number)
        loop.submit(make_submission(name, inputs, opened, client, client.deliver))
    loop.start()
    wait_for = time.monotonic() + 20
    while len(clients[0].fields) < 5 and time.monotonic() < wait_for:
        time.sleep(0.001)
    loop.cancel("0")
    assert {c.last["finish_reason"] for c in clients} <= {"length", "cancelled"}
    loop.stop(0)
    loop.join()
    assert all(counted == heard for counted, heard in counts)
    assert len({counted for counted, _ in counts}) > 5  # it grows with the steps
    assert output_tokens(loop) == sum(client.num_tokens for client in clients)


class Counting(Client):
    """Counts its tokens."""

    @property
    def num_tokens(self) -> int:
        return sum(len(fields.get("output_ids", ())) for fields in self.fields)


def test_a_number_in_use_is_refused_and_the_first_request_goes_on(loop, opened) -> None:
    _, first = submit(loop, opened, max_tokens=100, ignore_eos=True)
    _, second = submit(loop, opened)
    assert second.last["error"]["code"] == "invalid_request"
    assert first.last["finish_reason"] == "length"


def test_the_dashboard_shows_metrics_that_exist() -> None:
    text = (Path(engine_loop.__file__).parents[1] / "deploy" / "grafana.json").read_text()
    shown = set(re.findall(r"nemotrt_[a-z0-9_]+", text))
    exposed = Telemetry().text({}) + kept_text(KeptStats(1))
    exposed += "".join(f"\n# TYPE nemotrt_gpu_{name} " for name in (*GAUGES, "memory_bytes"))
    for name in shown:
        assert re.search(rf"^# TYPE {name.removesuffix('_bucket')} ", exposed, re.M), name


@pytest.mark.parametrize("values", [{"max_queue_size": 0}, {"max_queue_s": 0}])
def test_queue_limits_are_checked(values) -> None:
    with pytest.raises(ConfigError):
        QueueLimits(**values)
