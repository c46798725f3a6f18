"""One line for each answer: what it cost and how it ended, and nothing of what was said."""

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.access import ApiKeys
from nemotrt.serve.front.http.browsers import Hosts
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.front.upstream.upstream import Fields
from nemotrt.wire.trail import CURRENT, Trail
from support.saying_upstream import FILES, Client, SayingUpstream

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
DOORS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {**CHAT, "max_tokens": 99},
}


class Following(SayingUpstream):
    """Keeps the trail of each request that reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.trails: list[Trail] = []

    def generate(self, inputs: Fields) -> Any:
        self.trails.append(CURRENT.get())
        return super().generate(inputs)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def app_over(upstream: SayingUpstream, **more: Any) -> Any:
    return create_app(FrontSpec("llm", FILES, upstream, **more))


def answered(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [r.fields for r in caplog.records if r.name == "nemotrt.access"]  # type: ignore[attr-defined]


def post(app: Any, runner: asyncio.Runner, path: str, body: Any, **headers: str) -> Any:
    client = Client(app, runner)._client
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return runner.run(client.post(path, json={"model": "llm", **body}, headers=named))


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("stream", [False, True])
def test_each_door_counts_what_its_answer_counts(runner, caplog, path, stream) -> None:
    upstream = Following()
    with caplog.at_level(logging.INFO, "nemotrt.access"):
        answer = post(
            app_over(upstream), runner, path, {**DOORS[path], "stream": stream}, x_request_id="r-1"
        )
    assert answer.is_success and answer.headers["x-request-id"] == "r-1"
    assert {trail.request_id for trail in upstream.trails} == {"r-1"}
    [told] = answered(caplog)
    num_said = len(FILES.tokenizer.encode(upstream.said, add_special_tokens=False))  # type: ignore[union-attr]
    assert told["request_id"] == "r-1"
    assert (told["method"], told["path"], told["status"]) == ("POST", path, 200)
    assert (told["input_tokens"], told["output_tokens"]) == (3, num_said)
    assert told["finish_reasons"] == ["stop"]
    assert ("ttft_ms" in told) == stream and "is_cut_short" not in told and "tenant" not in told
    assert 0 <= told.get("ttft_ms", 0) <= told["duration_ms"]
    if not stream and path == "/v1/chat/completions":
        usage = answer.json()["usage"]
        assert usage["prompt_tokens"] == told["input_tokens"]
        assert usage["completion_tokens"] == told["output_tokens"]


def test_choices_and_prompts_count_as_their_usage_does(runner, caplog) -> None:
    with caplog.at_level(logging.INFO, "nemotrt.access"):
        body = {"prompt": ["Hi", "Ho"], "n": 2}
        usage = post(app_over(SayingUpstream()), runner, "/v1/completions", body).json()["usage"]
    [told] = answered(caplog)
    assert told["input_tokens"] == usage["prompt_tokens"] == 6
    assert told["output_tokens"] == usage["completion_tokens"]
    assert told["finish_reasons"] == ["stop"] * 4


def test_refusals_are_told_by_their_code(runner, caplog) -> None:
    keys = ApiKeys(tuple(hashlib.sha256(name.encode()).digest() for name in ("ada", "bob")))
    app = app_over(SayingUpstream(), tenants=Tenants(keys), hosts=Hosts(frozenset({"127.0.0.1"})))
    key = {"authorization": "Bearer bob"}
    with caplog.at_level(logging.INFO, "nemotrt.access"):
        post(app, runner, "/v1/completions", {"prompt": "Hi"}, **key)
        post(app, runner, "/v1/completions", {"prompt": "Hi"}, x_api_key="ada")
        post(app, runner, "/v1/completions", {"prompt": "Hi"}, authorization="Bearer mallory")
        post(app, runner, "/v1/completions", {"prompt": "Hi", "no": "secret"}, **key)
        post(app, runner, "/v1/nothing", {}, **key)
        post(app, runner, "/v1/completions", {"prompt": "Hi"}, host="evil.example", **key)
        post(app, runner, "/v1/completions", {"prompt": 5}, x_request_id="a b", **key)
    told = answered(caplog)
    assert [(one["status"], one.get("error")) for one in told] == [
        (200, None),
        (200, None),
        (401, "invalid_api_key"),
        (400, "invalid_request"),
        (404, "http_error"),
        (403, "unknown_host"),
        (400, "invalid_request"),
    ]
    tenants = [one.get("tenant") for one in told]
    assert tenants == ["key-2", "key-1", None, "key-2", "key-2", "key-2", "key-2"]
    assert all("input_tokens" not in one for one in told[2:])  # nothing was counted: not zero
    assert " " not in told[-1]["request_id"]
    shown = str([record.__dict__ for record in caplog.records])
    for secret in ("bob", "mallory", "secret", "evil", keys.digests[1].hex()):
        assert secret not in shown


def test_a_fault_is_an_error_with_its_code(runner, caplog) -> None:
    class Broken(SayingUpstream):
        def generate(self, inputs: Fields) -> Any:
            raise ValueError("a bug")

    app = app_over(Broken())
    with caplog.at_level(logging.INFO, "nemotrt.access"):
        assert post(app, runner, "/v1/completions", {"prompt": "Hi"}).status_code == 500
    [told] = answered(caplog)
    assert (told["status"], told["error"]) == (500, "fault")


def test_an_upstream_that_fails_in_a_stream_is_told(runner, caplog) -> None:
    upstream = SayingUpstream()
    upstream.fails_after = 3
    with caplog.at_level(logging.INFO, "nemotrt.access"):
        post(app_over(upstream), runner, "/v1/completions", {"prompt": "Hi", "stream": True})
    [told] = answered(caplog)
    assert (told["status"], told["error"]) == (200, "engine_failed")
    assert told["finish_reasons"] == []


def test_a_client_that_goes_is_told_as_cut_short(runner, caplog) -> None:
    upstream = SayingUpstream()
    upstream.pause_s = 0.01

    async def leave() -> None:
        app = app_over(upstream)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        body = b'{"model": "llm", "prompt": "Hi", "stream": true}'
        came = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if came:
                return came.pop()
            while len(sent) < 3:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")]
        path = {"path": "/v1/completions", "raw_path": b"/v1/completions", "query_string": b""}
        scope = {"type": "http", "method": "POST", "headers": headers, "http_version": "1.1"}
        await app({**scope, **path, "scheme": "http", "server": ("127.0.0.1", 1)}, receive, send)

    with caplog.at_level(logging.INFO, "nemotrt.access"):
        runner.run(leave())
    [told] = answered(caplog)
    assert told["is_cut_short"] is True and upstream.num_left == 1


def test_what_is_asked_all_day_is_told_at_debug_unless_it_fails(runner, caplog) -> None:
    app = app_over(SayingUpstream())
    client = Client(app, runner)._client
    with caplog.at_level(logging.DEBUG, "nemotrt.access"):
        for path in ("/health/live", "/ping", "/metrics", "/v1/models"):
            runner.run(client.get(path + "?key=secret"))
    levels = [r.levelno for r in caplog.records if r.name == "nemotrt.access"]
    assert levels == [logging.DEBUG, logging.DEBUG, logging.INFO, logging.INFO]  # no engine: 404
    assert [one["status"] for one in answered(caplog)] == [200, 200, 404, 200]
    assert "secret" not in str(answered(caplog))
