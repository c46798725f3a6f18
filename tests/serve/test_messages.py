"""/v1/messages: Anthropic's blocks and events, and the prompt that the chat gives.

Anthropic's own client reads them in tests/serve/clients/use_anthropic.py.
"""

import hashlib
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.access import ApiKeys
from nemotrt.serve.front.http.tenants import Tenants
from support.saying_upstream import FILES
from support.trace_stack import ThinksAndAnswers, trace_stack

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL: dict[str, Any] = {"name": "now", "description": "The time.", "input_schema": SCHEMA}
USER = [{"role": "user", "content": "What is the time?"}]
ASKED: dict[str, Any] = {"model": "llm", "max_tokens": 64, "messages": USER}
THINK = {"type": "enabled", "budget_tokens": 1024}


def whole(http: TestClient, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/messages", json=ASKED | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events(http: TestClient, **body: Any) -> list[dict[str, Any]]:
    """Return the events of a stream; each has the name that its data says."""
    answer = http.post("/v1/messages", json=ASKED | {"stream": True} | body)
    assert answer.status_code == 200, answer.text
    return read_events(answer.text)


def read_events(text: str) -> list[dict[str, Any]]:
    found = []
    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def put_together(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the message that a stream says, as Anthropic's reference puts it together."""
    assert [found[0]["type"], found[-1]["type"]] == ["message_start", "message_stop"]
    message: dict[str, Any] = found[0]["message"]
    inputs: dict[int, str] = {}
    for event in found[1:-1]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], dict(event["delta"])
            kind = delta.pop("type")
            assert event["index"] == len(message["content"]) - 1
            if kind == "input_json_delta":
                said = inputs.get(event["index"], "") + delta["partial_json"]
                inputs[event["index"]] = said
            else:
                block[kind.removesuffix("_delta")] += delta.popitem()[1]
        elif event["type"] == "content_block_stop" and event["index"] in inputs:
            message["content"][event["index"]]["input"] = json.loads(inputs[event["index"]])
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    return message


def without_names(message: dict[str, Any]) -> dict[str, Any]:
    blocks = [{k: v for k, v in block.items() if k != "id"} for block in message["content"]]
    return message | {"id": "", "content": blocks}


def test_a_whole_message(http) -> None:
    message = whole(http, tools=[TOOL], thinking=THINK)
    thinking, text, call = message["content"]
    assert thinking == {"type": "thinking", "thinking": "Let me see.", "signature": ""}
    assert text == {"type": "text", "text": "Ok."}
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "now", {})
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert (message["stop_reason"], message["stop_sequence"]) == ("tool_use", None)
    chat = http.post("/v1/chat/completions", json={"model": "llm", "messages": USER}).json()
    assert message["usage"] == {
        "input_tokens": chat["usage"]["prompt_tokens"],
        "output_tokens": chat["usage"]["completion_tokens"],
    }


def test_a_stream_is_the_whole(http) -> None:
    asked = {"tools": [TOOL], "thinking": THINK}
    found = put_together(events(http, **asked))
    assert without_names(found) == without_names(whole(http, **asked))


def test_a_trace_ends_with_its_signature_and_nothing_else_has_one(http) -> None:
    found = events(http, tools=[TOOL], thinking=THINK)
    deltas = [one["delta"]["type"] for one in found if one["type"] == "content_block_delta"]
    assert deltas.count("signature_delta") == 1
    place = next(i for i, one in enumerate(found) if "signature_delta" in str(one))
    assert found[place]["delta"] == {"type": "signature_delta", "signature": ""}
    assert found[place + 1] == {"type": "content_block_stop", "index": 0}
    plain = events(http, thinking={"type": "disabled"})
    kinds = [one.get("content_block", {}).get("type") for one in plain]
    assert ("signature_delta" in str(plain)) == ("thinking" in kinds)


def test_a_conversation_handed_back_is_the_chats(http, upstream) -> None:
    message = whole(http, tools=[TOOL], thinking=THINK, system="Be brief.")
    call = message["content"][2]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "Noon."}
    failed = {**result, "content": [{"type": "text", "text": "no clock"}], "is_error": True}
    turns = [
        *USER,
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": [result, failed, {"type": "text", "text": "Well?"}]},
    ]
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    whole(http, messages=turns, tools=[TOOL], thinking=THINK, system=system)
    function = {"name": "now", "arguments": "{}"}
    calls = [{"id": call["id"], "type": "function", "function": function}]
    turn = {"role": "assistant", "content": "Ok.", "reasoning_content": "Let me see."}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *USER,
        {**turn, "tool_calls": calls},
        {"role": "tool", "tool_call_id": call["id"], "content": "Noon."},
        {
            "role": "tool",
            "tool_call_id": call["id"],
            "content": [{"type": "text", "text": "Error:"}, {"type": "text", "text": "no clock"}],
        },
        {"role": "user", "content": [{"type": "text", "text": "Well?"}]},
    ]
    shown = {"name": "now", "description": "The time.", "parameters": SCHEMA}
    body = {
        "model": "llm",
        "messages": messages,
        "tools": [{"type": "function", "function": shown}],
        "chat_template_kwargs": {"enable_thinking": True},
        "max_thinking_tokens": 1024,
        "max_tokens": 64,
    }
    assert http.post("/v1/chat/completions", json=body).is_success
    _, ours, chats = upstream.asked
    assert ours == chats


@pytest.mark.parametrize(
    ("thinking", "system", "thinks"),
    [
        (None, "", False),
        ({"type": "disabled"}, "", False),
        (THINK, "", True),
        ({"type": "adaptive"}, "", True),
        ({"type": "adaptive"}, "/no_think", False),
        (None, "/think", True),
    ],
)
def test_it_thinks_where_it_is_asked_to(http, upstream, thinking, system, thinks) -> None:
    whole(http, thinking=thinking, system=system or None)
    assert upstream.asked[0]["text_input"].endswith("<think>\n") is thinks


@pytest.mark.parametrize(
    ("choice", "chats"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        (
            {"type": "tool", "name": "now", "disable_parallel_tool_use": True},
            {
                "tool_choice": {"type": "function", "function": {"name": "now"}},
                "parallel_tool_calls": False,
            },
        ),
    ],
)
def test_tool_choice_and_the_rest_reach_the_engine_as_the_chats_do(
    http, upstream, choice, chats
) -> None:
    whole(http, tools=[TOOL], tool_choice=choice, top_k=7, top_p=0.5, temperature=0.25)
    shown = {"name": "now", "description": "The time.", "parameters": SCHEMA}
    body = {"model": "llm", "messages": USER, "max_tokens": 64, "top_k": 7, "top_p": 0.5}
    body |= {"tools": [{"type": "function", "function": shown}], "temperature": 0.25}
    body |= {"chat_template_kwargs": {"enable_thinking": False}} | chats
    assert http.post("/v1/chat/completions", json=body).is_success
    assert upstream.asked[0] == upstream.asked[1]


def test_a_schema_reaches_the_engine(http, upstream) -> None:
    whole(http, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert upstream.asked[0]["guided_decoding_guide_type"] == "json_schema"
    assert json.loads(upstream.asked[0]["guided_decoding_guide"]) == SCHEMA


def test_tokens_are_counted_as_the_engine_gets_them(http, upstream) -> None:
    asked = {"system": "Be brief.", "tools": [TOOL], "thinking": THINK}
    whole(http, **asked)
    body = {"model": "llm", "messages": USER, **asked}
    answer = http.post("/v1/messages/count_tokens", json=body)
    prompt = upstream.asked[0]["text_input"]
    expected = FILES.tokenizer.encode(prompt, add_special_tokens=False)  # type: ignore[union-attr]
    assert answer.json() == {"input_tokens": len(expected)}
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(
    ("said", "reason", "stop_reason"),
    [("Hm.</think>\n\n", "stop", "end_turn"), ("Let me", "length", "max_tokens")],
)
def test_why_it_stopped(http, upstream, said, reason, stop_reason) -> None:
    upstream.said, upstream.reason = said, reason
    message = whole(http, thinking=THINK)
    assert message["stop_reason"] == stop_reason
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert without_names(put_together(events(http, thinking=THINK))) == without_names(message)


def test_an_input_that_is_no_object_is_kept_as_it_was_written(http, upstream) -> None:
    upstream.said = '</think>\n\n<TOOLCALL>[{"name": "now", "arguments": [1]}]</TOOLCALL>'
    message = whole(http, tools=[TOOL], thinking=THINK)
    assert message["content"][-1]["input"] == {"raw_arguments": "[1]"}


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("messages", [{"role": "user", "content": [{"type": "image"}]}], "images"),
        ("messages", [{"role": "user", "content": [{"type": "document"}]}], "files"),
        ("messages", [{"role": "user", "content": [{"type": "redacted_thinking"}]}], "redacted"),
        ("messages", [{"role": "system", "content": "x"}], "messages.0.role"),
        ("tools", [{"type": "web_search_20250305", "name": "web_search"}], "web_search_20250305"),
        ("tool_choice", {"type": "tool"}, "tool_choice"),
        ("max_tokens", None, "max_tokens"),
        ("max_tokens", 0, "max_tokens"),
        ("top_p", 2, "top_p"),
        ("container", "c", "container"),
        ("service_tier", "priority", "service_tier"),
        ("n", 2, "n"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(http, upstream, field, value, named) -> None:
    refused = http.post("/v1/messages", json={**ASKED, field: value})
    assert refused.status_code == 400
    assert set(refused.json()) == {"type", "error"}
    error = refused.json()["error"]
    assert error["type"] == "invalid_request_error" and named in error["message"]
    assert not upstream.asked


def test_errors_have_anthropics_form(http, upstream) -> None:
    missing = http.post("/v1/messages", json={**ASKED, "model": "claude"})
    assert missing.status_code == 404 and missing.json()["error"]["type"] == "not_found_error"
    assert http.get("/v1/messages").json()["error"]["type"] == "invalid_request_error"
    upstream.fails_after = 3
    failed = http.post("/v1/messages", json=ASKED)
    details = {"error_code": "engine_failed"}
    told = {"type": "api_error", "message": "told to fail", "details": details}
    assert (failed.status_code, failed.json()) == (500, {"type": "error", "error": told})
    assert events(http)[-1] == {"type": "error", "error": told}
    upstream.fails_after = 0
    assert http.post("/v1/messages", json={**ASKED, "stream": True}).json() == failed.json()


def test_the_key_may_come_as_x_api_key(upstream) -> None:
    keys = ApiKeys((hashlib.sha256(b"ada").digest(),))
    with TestClient(create_app(FrontSpec("llm", FILES, upstream, Tenants(keys)))) as http:
        for headers in ({"x-api-key": "ada"}, {"Authorization": "Bearer ada"}):
            assert http.post("/v1/messages", json=ASKED, headers=headers).is_success
        assert len({asked["cache_salt"] for asked in upstream.asked}) == 1
        for wrong in ({"x-api-key": "bob"}, {"x-api-key": ""}, {}):
            refused = http.post("/v1/messages", json=ASKED, headers=wrong)
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("stops", "text", "stop"),
    [
        (["two."], "One, ", "two."),
        (["o.", "wo. T", "two."], "One, ", "two."),
        (["", "One"], "", "One"),
        (["four"], "One, two. Three", None),
    ],
)
def test_the_stop_sequence_that_came_is_said(opened, tmp_path, stops, text, stop) -> None:
    ids = opened.tokenizer.encode("One, two. Three", add_special_tokens=False)
    engine = ThinksAndAnswers(opened.tokenizer, ids, ())
    asked = {"messages": USER, "max_tokens": 64, "stop_sequences": stops}
    with trace_stack(opened, FILES.template, engine, tmp_path) as client:
        message = client.post("messages", **asked).json()
        streamed = put_together(read_events(client.post("messages", stream=True, **asked).text))
    assert message["content"] == [{"type": "text", "text": text}]
    expected = ("end_turn", None) if stop is None else ("stop_sequence", stop)
    assert (message["stop_reason"], message["stop_sequence"]) == expected
    assert without_names(streamed) == without_names(message)


def test_a_thread_is_refused_by_the_code_that_clients_know(http) -> None:
    refused = http.post("/v1/messages", json={**ASKED, "thread": {"type": "create"}})
    assert refused.status_code == 400
    assert refused.json()["error"]["details"]["error_code"] == "thread_unsupported_request"
