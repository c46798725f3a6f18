"""What clients of 2026 send beside the fields: each is taken with its effect, or told the cure."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from nemotrt.serve.front.http import event_stream
from support.saying_upstream import CHAT_BODY, TOOL

CHAT = "/v1/chat/completions"
OTHER = {"type": "function", "function": {"name": "later", "parameters": {"type": "object"}}}
OURS = {"type": "function", "function": {"name": "now"}}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_those_that_the_model_is_shown(http, upstream, mode) -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [OURS]}}
    some = {**CHAT_BODY, "tools": [TOOL, OTHER], "tool_choice": allowed}
    assert http.post(CHAT, json=some).status_code == 200
    http.post(CHAT, json={**CHAT_BODY, "tools": [TOOL], "tool_choice": mode})
    both = upstream.asked
    assert both[0] == both[1]
    response: dict[str, Any] = {"input": "Hi", "tool_choice": {"type": "allowed_tools"}}
    response["tool_choice"] |= {"mode": mode, "tools": [{"type": "function", "name": "now"}]}
    response["tools"] = [{"type": "function", **tool["function"]} for tool in (TOOL, OTHER)]
    answer = http.post("/v1/responses", json=response).json()
    assert both[2]["text_input"] == both[0]["text_input"]
    assert answer["tool_choice"] == response["tool_choice"]
    assert [tool["name"] for tool in answer["tools"]] == ["now", "later"]


@pytest.mark.parametrize("choice", ["any", {"type": "x"}, 5, {"type": "custom", "name": "a"}])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_another_choice_is_refused_by_the_fields_own_name(http, path, choice) -> None:
    body = {**CHAT_BODY, "tools": [TOOL]} if path == CHAT else {"input": "Hi"}
    error = http.post(path, json={**body, "tool_choice": choice}).json()["error"]
    assert error["param"] == "tool_choice" and "allowed_tools" in error["message"]


def test_an_allowed_tool_that_is_none_is_refused(http) -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [OURS]}}
    answer = http.post(CHAT, json={**CHAT_BODY, "tools": [OTHER], "tool_choice": allowed})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tool_choice")


def test_hints_for_a_cache_change_nothing(http, upstream) -> None:
    hint = {"cache_control": {"type": "ephemeral"}}
    messages = [{**turn, **hint} for turn in CHAT_BODY["messages"]]
    for body in ({**CHAT_BODY, "tools": [TOOL]}, {"messages": messages, "tools": [TOOL | hint]}):
        assert http.post(CHAT, json={**CHAT_BODY, **body}).status_code == 200
    assert upstream.asked[0] == upstream.asked[1]


@pytest.mark.parametrize("path", [f"{CHAT}/", f"/{CHAT}", "//chat/completions/"])
def test_a_slash_too_many_is_no_other_path(http, path) -> None:
    assert http.request("POST", f"http://testserver{path}", json=CHAT_BODY).status_code == 200
    listed = http.get("/v1/models/", follow_redirects=False)
    assert listed.json() == http.get("/v1/models").json()


@pytest.mark.parametrize("coding", ["gzip", "br", "x, gzip"])
def test_a_compressed_body_is_refused_as_such(http, coding) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    packed = gzip.compress(json.dumps(CHAT_BODY).encode())
    answer = http.post(CHAT, content=packed, headers=headers)
    assert answer.status_code == 415 and coding in answer.json()["error"]["message"]
    headers["Content-Encoding"] = "identity"
    assert http.post(CHAT, content=json.dumps(CHAT_BODY), headers=headers).status_code == 200


def test_anthropics_effort_decides_where_nothing_is_said_of_thinking(http, upstream) -> None:
    body = {"max_tokens": 8, "messages": CHAT_BODY["messages"]}
    for more in ({"output_config": {"effort": "low"}}, {"thinking": {"type": "adaptive"}}, {}):
        assert http.post("/v1/messages", json={**body, **more}).status_code == 200, more
    effort, adaptive, neither = (asked["text_input"] for asked in upstream.asked)
    assert effort == adaptive != neither


@pytest.mark.parametrize("door", ["/v1/responses", "/v1/messages"])
@pytest.mark.parametrize(
    "field",
    [{"guided_choice": ["a"]}, {"structured_outputs": {"regex": "a+"}}, {"bad_words": ["x"]}],
)
def test_every_door_to_a_chat_takes_an_answers_form(http, upstream, door, field) -> None:
    messages = CHAT_BODY["messages"]
    own = {"input": "Hi"} if "responses" in door else {"max_tokens": 8, "messages": messages}
    assert http.post(door, json={**own, **field}).status_code == 200
    http.post(CHAT, json={**CHAT_BODY, **field})
    told = [
        {name: value for name, value in asked.items() if name[:3] in ("gui", "bad")}
        for asked in upstream.asked
    ]
    assert told[0] == told[1] != {}


def test_a_long_silence_has_comments_and_a_late_refusal_is_an_event(monkeypatch) -> None:
    """Proxies end a silent connection; a client's reader passes comments over."""
    monkeypatch.setattr(event_stream, "QUIET_S", 0.02)
    sent: list[Any] = []

    async def chunks() -> Any:
        await asyncio.sleep(0.15)
        yield [{"a": 1}]
        raise event_stream.ApiError(503, "gone")

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(60)

    stream = event_stream.EventStream(chunks())
    scope = {"type": "http", "path": CHAT}
    asyncio.run(stream(scope, receive, send))
    assert [message["type"] for message in sent][:1] == ["http.response.start"]
    bodies = [message["body"] for message in sent[1:]]
    assert bodies[0] == event_stream.QUIET and bodies[0].startswith(b": ")
    said = [body for body in bodies if body != event_stream.QUIET]
    assert said[0] == b'data: {"a":1}\n\n' and b"gone" in said[1] and said[2] == event_stream.DONE


def test_a_trace_that_is_to_be_kept_is_kept(http, upstream) -> None:
    body = {"max_tokens": 8, "messages": CHAT_BODY["messages"]}
    keep = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    for managed, status in ((keep, 200), ({"edits": []}, 200), ({"edits": [{"type": "x"}]}, 400)):
        answer = http.post("/v1/messages", json={**body, "context_management": managed})
        assert answer.status_code == status, answer.text
