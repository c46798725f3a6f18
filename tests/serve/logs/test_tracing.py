"""Spans as the real SDK sends them, read by OpenTelemetry's own protobuf; off, nothing is there."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from nemotrt import needs
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.upstream.upstream import Fields
from nemotrt.serve.logs import tracing
from nemotrt.serve.logs.tracing import Tracing, check_tracing, start_tracing
from nemotrt.wire.trail import CURRENT, Trail
from support.otlp_receiver import Receiver, otlp_receiver, values
from support.saying_upstream import FILES, Client, SayingUpstream

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
BODY = {"model": "llm", "messages": [{"role": "user", "content": "a secret"}], "stream": True}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def receiver(monkeypatch) -> Iterator[Receiver]:
    with otlp_receiver() as receiver:
        monkeypatch.setenv(ENDPOINT, receiver.url)
        yield receiver


class Engine(SayingUpstream):
    """Keeps the trail that it would pass on to the engine's process."""

    trail = Trail()

    def generate(self, inputs: Fields) -> Any:
        self.trail = CURRENT.get()
        return super().generate(inputs)


def ask(traces: Tracing, upstream: Engine, **headers: str) -> Any:
    app = create_app(FrontSpec("llm", FILES, upstream, tracing=traces))
    with asyncio.Runner() as runner:
        client = Client(app, runner)._client
        return runner.run(client.post("/v1/chat/completions", json=BODY, headers=headers))


def test_a_request_is_a_span_of_its_clients_trace(receiver, monkeypatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=ours,deployment=a")
    traces, upstream = start_tracing("front", {"gen_ai.request.model": "llm"}), Engine()
    assert traces is not None
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=x", "x-request-id": "r-7"}
    assert ask(traces, upstream, **headers).is_success
    traces.close()
    [(span, resource)] = receiver.spans
    assert resource["service.name"] == "ours" and resource["deployment"] == "a"
    assert resource["nemotrt.process"] == "front"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == Span.SPAN_KIND_SERVER and span.name == "POST /v1/chat/completions"
    found = values(span.attributes)
    num_said = len(FILES.tokenizer.encode(upstream.said, add_special_tokens=False))  # type: ignore[union-attr]
    seconds = found.pop("gen_ai.response.time_to_first_chunk")
    assert 0 <= seconds <= (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 + 1e-3
    assert found == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "nemotrt",
        "gen_ai.request.model": "llm",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": num_said,
        "gen_ai.usage.reasoning.output_tokens": 0,
        "gen_ai.response.finish_reasons": ["stop"],
        "nemotrt.request_id": "r-7",
    }
    trail = upstream.trail
    assert trail == Trail("r-7", f"00-{TRACE}-{span.span_id.hex()}-01", "vendor=x")
    assert b"secret" not in span.SerializeToString()


def test_without_a_client_of_a_trace_it_begins_one_and_a_fault_is_an_error(receiver) -> None:
    class Broken(Engine):
        def generate(self, inputs: Fields) -> Any:
            raise ValueError("a secret")

    traces = Tracing("front", {})
    for traceparent in ("", "00-zz-yy-01", f"00-{'0' * 32}-{PARENT}-01"):
        assert ask(traces, Broken(), traceparent=traceparent).status_code == 500
    traces.close()
    spans = [span for span, _ in receiver.spans]
    assert len({span.trace_id for span in spans}) == 3
    for span in spans:
        assert not span.parent_span_id and span.status.code == Status.STATUS_CODE_ERROR
        assert values(span.attributes)["error.type"] == "fault"
        assert b"secret" not in span.SerializeToString()


def test_a_trace_that_its_client_does_not_sample_is_not_sent(receiver) -> None:
    traces, upstream = Tracing("front", {}), Engine()
    assert ask(traces, upstream, traceparent=TRACEPARENT[:-2] + "00").is_success
    traces.sequence(upstream.trail, time.monotonic(), (None, None, None), {})
    traces.close()
    assert receiver.spans == []
    assert upstream.trail.traceparent.startswith(f"00-{TRACE}-")
    assert upstream.trail.traceparent.endswith("-00")


@pytest.mark.parametrize("num_ended", range(4))
def test_a_sequences_time_is_all_in_its_steps(receiver, num_ended) -> None:
    traces = Tracing("engine", {})
    submitted_s = time.monotonic() - 9.0
    ends_s = [submitted_s + 1.0, submitted_s + 3.0, submitted_s + 7.0]
    told = [end if i < num_ended else None for i, end in enumerate(ends_s)]
    traces.sequence(Trail("r", TRACEPARENT), submitted_s, told, {"ttft_ms": 3000.0, "outcome": "x"})
    traces.close()
    spans = {span.name: span for span, _ in receiver.spans}
    whole = spans.pop("generate")
    assert whole.trace_id.hex() == TRACE and whole.parent_span_id.hex() == PARENT
    assert values(whole.attributes)["gen_ai.response.time_to_first_chunk"] == 3.0
    assert list(spans) == ["queue", "prefill", "decode"][: num_ended + 1]
    start = whole.start_time_unix_nano
    assert start / 1e9 == pytest.approx(time.time() - 9.0, abs=60)
    for span, length_s in zip(spans.values(), (1.0, 2.0, 4.0), strict=False):
        assert span.parent_span_id == whole.span_id and span.start_time_unix_nano == start
        if span is not list(spans.values())[-1] or num_ended == 3:
            length = span.end_time_unix_nano - start
            assert length / 1e9 == pytest.approx(length_s, abs=1e-6)
        start = span.end_time_unix_nano
    if num_ended < 3:
        assert start == whole.end_time_unix_nano  # it ended in that step


def test_a_dead_endpoint_has_no_effect(monkeypatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        monkeypatch.setattr(tracing, "FLUSH_S", 0.1)
        traces = start_tracing("front", {})
        assert traces is not None
        for _ in range(3):
            assert ask(traces, Engine(), traceparent=TRACEPARENT).is_success
        traces.close()


def test_an_endpoint_without_the_extra_is_said_before_anything_starts(monkeypatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setattr(needs.Package, "installed", lambda self: None)
    with pytest.raises(EnvironmentUnfitError, match=r"nemotrt\[tracing\]") as caught:
        check_tracing()
    assert ENDPOINT in caught.value.message and "opentelemetry-sdk" in caught.value.message


@pytest.mark.parametrize(
    ("environment", "is_on"),
    [
        ({}, False),
        ({ENDPOINT: " "}, False),
        ({ENDPOINT: "http://x:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, True),
        ({ENDPOINT: "http://x:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({ENDPOINT: "http://x:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_when_it_is_on(monkeypatch, environment, is_on) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracing.is_asked() == is_on
    check_tracing()
    if not is_on:
        assert start_tracing("front", {}) is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({ENDPOINT: "http://x:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "not 'grpc'"),
        ({ENDPOINT: "collector:4318"}, "http or https address"),
    ],
)
def test_what_can_not_be_spoken_to_is_refused(monkeypatch, environment, words) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        start_tracing("front", {})


OFF = """
import json, sys
import nemotrt.serve.engine.host, nemotrt.serve.front.process, nemotrt.serve.supervision.supervisor
from nemotrt.serve.logs.tracing import check_tracing, start_tracing
check_tracing()
assert start_tracing("front", {}) is None
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]))
"""


def test_off_imports_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
