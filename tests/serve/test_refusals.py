"""What is refused, and what fails, at every door: its status, in the form of the door's clients.

The oracle of the form is the clients' own: OpenAI's package and Anthropic's reference.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.doors.facts import NOT_SERVED
from nemotrt.serve.front.http.access import OPEN_PATHS, ApiKeys
from nemotrt.serve.front.http.api_error import STATUS
from nemotrt.serve.front.http.browsers import HostGate, Hosts
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError
from nemotrt.serve.requests.endpoints import Endpoint
from nemotrt.serve.requests.limits import CONTEXT_LENGTH_EXCEEDED
from support.door_values import DOORS
from support.front_routes import routes_of
from support.saying_upstream import FILES, SayingUpstream

Json = dict[str, Any]
SPEC = FrontSpec("llm", FILES, SayingUpstream(), max_body_bytes=5000)
KEYS = Tenants(ApiKeys((hashlib.sha256(b"ada").digest(),)))
# Source: Anthropic's API reference, errors.
ANTHROPICS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
BODIES = {door.path: door.least for door in DOORS}
for counts in ("/v1/chat/completions", "/v1/responses"):
    BODIES[f"{counts}/input_tokens"] = BODIES[counts]  # of the same bodies
STREAMED = [door.path for door in DOORS[:4]]
PROMPTS = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/responses": "input",
}
ROUTES = {
    route.path.replace("{name}", "x").replace("{name:path}", "x"): route.methods or set()
    for route in routes_of(create_app(SPEC))
}


class Refusal(NamedTuple):
    """Requests that are refused with a status: where, by which server, and what is sent."""

    status: int
    paths: Iterable[str]
    spec: FrontSpec = SPEC
    method: str = "POST"
    sent: Callable[[str], Json] = lambda path: {"json": BODIES.get(path, {})}
    under: str = ""  # of the path


LOCKED = replace(SPEC, tenants=KEYS)
STOPPING = replace(SPEC, is_draining=lambda: True)
TYPE = {"content-type": "application/json"}
CLOSED = [path for path in ROUTES if path not in OPEN_PATHS]
REFUSALS = {
    "no key": Refusal(401, CLOSED, LOCKED),
    "another model": Refusal(
        404, Endpoint, sent=lambda path: {"json": BODIES[path] | {"model": "other"}}
    ),
    "another method": Refusal(405, ROUTES, method="PATCH"),
    "no such path": Refusal(404, Endpoint, under="/nothing/here"),
    "too large": Refusal(413, ROUTES, sent=lambda path: {"content": b"x" * 6000}),
    "no JSON": Refusal(415, Endpoint, sent=lambda path: {"content": b"{}"}),
    "broken JSON": Refusal(400, Endpoint, sent=lambda path: {"content": b"{", "headers": TYPE}),
    "no fields": Refusal(400, Endpoint, sent=lambda path: {"json": {}}),
    "stopping": Refusal(503, Endpoint, STOPPING),
    "of another kind": Refusal(400, NOT_SERVED),
}


def check_form(path: str, answer: Any) -> str:
    """Assert the form of an error; return its code."""
    told, error = answer.json(), answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"
    if path.startswith("/v1/messages"):
        assert set(told) == {"type", "error"} and told["type"] == "error"
        assert error["type"] == ANTHROPICS[answer.status_code]
        code = error["details"]["error_code"]
    else:
        assert set(told) == {"error"} and set(error) == {"message", "type", "param", "code"}
        is_ours = answer.status_code >= 500
        assert error["type"] == ("server_error" if is_ours else "invalid_request_error")
        code = error["code"]
    assert isinstance(error["message"], str) and error["message"]
    return str(code)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_the_doors_own_form(name) -> None:
    status, paths, spec, method, sent, under = REFUSALS[name]
    with TestClient(create_app(spec)) as http:
        for path in paths:
            answer = http.request(method, path + under, **sent(path))
            assert answer.status_code == status, (path, answer.text)
            assert check_form(path, answer)
            assert bool(answer.headers.get("www-authenticate")) is (status == 401)
            assert bool(answer.headers.get("retry-after")) is (status == 503)
            if status == 405:
                assert set(answer.headers["allow"].split(", ")) == ROUTES[path]
            own = answer.headers["x-request-id"]
            assert answer.headers.get("request-id") == (own if "/messages" in path else None)


def test_another_host_is_refused_in_the_doors_own_form() -> None:
    with TestClient(HostGate(create_app(SPEC), Hosts()), base_url="http://evil.example") as http:
        for path in ROUTES:
            answer = http.post(path, json={})
            assert answer.status_code == 403 and check_form(path, answer) == "unknown_host"


class FailingUpstream(SayingUpstream):
    """Fails for a reason, before a token or after three."""

    def __init__(self, code: str, after: int) -> None:
        super().__init__()
        self._error, self._after = UpstreamError(code, "told to fail"), after

    async def generate(self, inputs: Fields) -> Any:
        count = 0
        async for fields in super().generate(inputs):
            if count == self._after:
                raise self._error
            yield fields
            count += 1


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("code", [*STATUS, "unheard_of"])
def test_a_failure_behind_the_front_has_the_doors_own_form(path, code) -> None:
    for after, streams in ((0, False), (0, True), (3, False), (3, True)):
        spec = replace(SPEC, upstream=FailingUpstream(code, after))
        with TestClient(create_app(spec)) as http:
            answer = http.post(path, json=BODIES[path] | {"stream": streams})
        if after and streams:  # it has begun to answer
            data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
            last = json.loads(data[-1])
            error = last["response"]["error"] if path == "/v1/responses" else last["error"]
            assert code == error.get("details", {"error_code": error.get("code")})["error_code"]
            continue
        assert answer.status_code == STATUS.get(code, 500), answer.text
        assert check_form(path, answer) == code
        if code == CONTEXT_LENGTH_EXCEEDED and path in PROMPTS:
            assert answer.json()["error"]["param"] == PROMPTS[path]


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(create_app(replace(SPEC, max_body_bytes=None))) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
        ({"reasoning": {"effort": "none"}, "input": "/think Hi"}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
        ({"text": {"format": {"type": "json_object", "schema": {}}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "schema": {"a": 2}}}, "tools": []}, None),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": [{"type": "reasoning", "summary": []}]}, None),
        (
            {
                "input": [
                    {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{"},
                    {"type": "function_call_output", "call_id": "c", "output": ""},
                ]
            },
            "input",
        ),
        ({"input": "a" * 64 * 513}, "input"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
def test_a_responses_error_is_about_a_field_that_it_has(http, body, param) -> None:
    answer = http.post("/v1/responses", json=BODIES["/v1/responses"] | body)
    error = answer.json().get("error") or {"param": None}
    assert answer.status_code == (400 if param else 200), answer.text
    assert error["param"] == param, error
    if param:
        assert param in error["message"], error


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"output_config": {"effort": "much"}}, "output_config.effort"),
        ({"stop_sequences": ["x"] * 65}, "stop_sequences"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_a_messages_error_is_about_a_field_that_it_has(http, body, named) -> None:
    answer = http.post("/v1/messages", json=BODIES["/v1/messages"] | body)
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"], answer.text
