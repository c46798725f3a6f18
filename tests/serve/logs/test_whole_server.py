"""A whole server at its most talkative: a request is followed by its id, and nobody is quoted."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotrt.serve.logs.files import files_of
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState
from support.otlp_receiver import Receiver, otlp_receiver

KEY, WRONG_KEY = "key-zyxwv-1", "key-zyxwv-2"
SAID = "zyxwv"  # in every key, prompt, field and header that is sent
MAX_MIB = 0.004
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MESSAGES = [{"role": "user", "content": f"Hello {SAID}\n2026-11-30T00:00:00.000Z INFO x forged"}]
CHAT = {"model": "llm", "messages": MESSAGES, "max_tokens": 4}
TOOL = {"type": "function", "function": {"name": f"f_{SAID}", "parameters": {"type": "object"}}}
DAMAGED: list[tuple[str, Any]] = [
    ("chat/completions", CHAT | {f"field_{SAID}": SAID}),
    ("chat/completions", CHAT | {"model": SAID}),
    ("chat/completions", CHAT | {"temperature": SAID}),
    ("chat/completions", CHAT | {"guided_grammar": f"start: {SAID} ]["}),
    ("chat/completions", CHAT | {"guided_regex": f"({SAID}"}),
    ("chat/completions", CHAT | {"tools": [TOOL], "tool_choice": "required"}),
    ("chat/completions", CHAT | {"cache_salt": SAID, "stop": [SAID], "user": SAID}),
    ("chat/completions", CHAT | {"messages": [*MESSAGES, {"role": SAID, "content": SAID}]}),
    ("completions", {"model": "llm", "prompt": SAID * 9000}),
    ("completions", {"model": "llm", "prompt": SAID, "max_tokens": 2, "n": 2}),
    ("messages", CHAT | {"system": SAID}),
    ("responses", {"model": "llm", "input": SAID, "max_output_tokens": 2}),
    ("responses", {"model": "llm", "input": SAID, "previous_response_id": SAID}),
    ("chat/completions", f'{{"model": "llm", "x": "{SAID}'),
]


@dataclass
class Talkative:
    """A server, what it wrote, and the collector of its spans."""

    state: ServerState
    receiver: Receiver

    def text(self, name: str) -> str:
        path = Path(self.state.run_folder) / f"{name}.log"
        return "".join(found.read_text() for found in files_of(path))

    def lines(self, name: str, request_id: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.text(name).splitlines()]
        return [one for one in found if not request_id or one.get("request_id") == request_id]

    def post(self, path: str, body: Any, request_id: str, **headers: str) -> httpx.Response:
        given = {"Authorization": f"Bearer {KEY}", "X-Request-Id": request_id, **headers}
        content = body if isinstance(body, str) else json.dumps(body)
        given["Content-Type"] = "application/json"
        url = f"{self.state.openai_url}/{path}"
        return httpx.post(url, content=content, headers=given, timeout=60)


@pytest.fixture(scope="module", params=["direct", pytest.param("triton", marks=pytest.mark.triton)])
def server(request, engine_folder, triton_runtime) -> Iterator[Talkative]:
    options = ["--threads", "1", "--logs", "-vv", "--log-format", "json"]
    options += ["--log-max-mib", str(MAX_MIB), "--log-files", "500"]
    options += ["--no-triton"] if request.param == "direct" else []
    with otlp_receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            patch.delenv(name)
        patch.setenv("NEMOTRT_API_KEYS", KEY)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with serve_engine(engine_folder, *options, drain_s=5) as state:
            yield Talkative(state, receiver)


def wait_for(what: Callable[[], Any], timeout_s: float = 60) -> Any:
    until_s = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.02)
    return found


def test_a_request_is_followed_through_the_processes(server) -> None:
    traceparent = f"00-{TRACE}-{PARENT}-01"
    answer = server.post("chat/completions", CHAT, "follow-1", traceparent=traceparent)
    assert answer.is_success

    def answered() -> list[dict[str, Any]]:
        found = server.lines("front", "follow-1")
        return [one for one in found if one["logger"] == "nemotrt.access"]

    [front] = wait_for(answered)
    wait_for(lambda: any(one["message"] == "ended" for one in server.lines("engine", "follow-1")))
    engine = server.lines("engine", "follow-1")
    assert [one["message"] for one in engine] == ["queued", "admitted", "ended"]
    usage = answer.json()["usage"]
    for line in (front, engine[-1]):
        assert line["input_tokens"] == usage["prompt_tokens"]
        assert line["output_tokens"] == usage["completion_tokens"]
    assert front["tenant"] == "key-1" and front["trace_id"] == TRACE
    assert engine[-1]["queue_ms"] <= engine[-1]["ttft_ms"] <= engine[-1]["duration_ms"]

    def spans() -> dict[str, Any]:
        return {s.name: s for s, _ in server.receiver.spans if s.trace_id.hex() == TRACE}

    found = wait_for(lambda: spans() if len(spans()) == 5 else None)
    http = found.pop("POST /v1/chat/completions")
    whole = found.pop("generate")
    assert http.parent_span_id.hex() == PARENT and whole.parent_span_id == http.span_id
    assert set(found) == {"queue", "prefill", "decode"}
    assert {span.parent_span_id for span in found.values()} == {whole.span_id}
    times = [(s.start_time_unix_nano, s.end_time_unix_nano) for s in found.values()]
    for (_, end), (start, _) in zip(sorted(times), sorted(times)[1:], strict=False):
        assert end == start


def test_nobody_is_quoted_and_no_line_is_forged(server) -> None:
    statuses = set()
    for number, (path, body) in enumerate(DAMAGED):
        statuses.add(server.post(path, body, f"damaged-{number}").status_code)
        body = body | {"stream": True} if isinstance(body, dict) else body
        statuses.add(server.post(path, body, f"stream-{number}").status_code)
    wrong = server.post("completions", {}, "wrong-key", Authorization=f"Bearer {WRONG_KEY}")
    assert wrong.status_code == 401 and statuses >= {200, 400, 404} and 500 not in statuses
    url = f"{server.state.openai_url}/x%0a%7b%22timestamp%22?key={SAID}"
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": f'last"{SAID}"\t'}
    assert httpx.get(url, headers=headers | {"X-Request-Id": "last"}).status_code == 404
    wait_for(lambda: server.lines("front", "last"))
    ids = {one.get("request_id") for one in server.lines("front")}
    assert {f"{kind}-{n}" for kind in ("damaged", "stream") for n in range(len(DAMAGED))} <= ids
    folder = Path(server.state.run_folder)
    logs = [path for path in folder.iterdir() if ".log" in path.name]
    for path in logs:
        text = path.read_text()
        assert SAID not in text, (path.name, [x for x in text.splitlines() if SAID in x][:3])
        for line in text.splitlines():
            told = json.loads(line)
            assert {"timestamp", "level", "logger", "process", "message"} <= told.keys()
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["timestamp"])
    assert all(SAID.encode() not in s.SerializeToString() for s, _ in server.receiver.spans)
    assert len(files_of(folder / "front.log")) > 3
    for path in logs:  # a longer line has a file of its own
        text = path.read_text()
        is_small = len(text) <= MAX_MIB * 2**20 or text.count("\n") == 1
        assert is_small or path.name == "serve.log", path.name


def test_the_servers_own_standard_error_is_objects_too(server) -> None:
    wait_for(lambda: "ready" in {one["message"] for one in server.lines("serve")})
    processes = {one["process"] for one in server.lines("serve")}
    assert {"serve", "engine", "front"} <= processes
