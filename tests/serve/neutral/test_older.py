"""What older and other servers' clients send: functions of 2023, others' traces, padding."""

import json
from typing import Any

import pytest

from nemotrt.serve.front.http.event_stream import PADDED_BYTES
from nemotrt.serve.front.schema.messages import Message
from support.saying_upstream import CHAT_BODY, TOOL, ask

FUNCTIONS = {"functions": [TOOL["function"]]}
TOOLS = {"tools": [TOOL], "parallel_tool_calls": False}
CALLED = {"name": "now", "arguments": "{}"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, None),
        ("auto", "auto"),
        ("none", "none"),
        ({"name": "now"}, {"type": "function", "function": {"name": "now"}}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_functions_are_tools_with_one_call(client, upstream, old, new, stream) -> None:
    asked = {**CHAT_BODY, "stream": stream}
    status, found, text = ask(client, upstream, {**asked, **FUNCTIONS, "function_call": old})
    _, expected, as_tools = ask(client, upstream, {**asked, **TOOLS, "tool_choice": new})
    assert status == 200 and found == expected
    said, meant = joined(json.loads(text)), joined(json.loads(as_tools))
    assert (said.pop("function_call", None), said.pop("reason")) == (
        (None, "stop") if old == "none" else (CALLED, "function_call")
    )
    del meant["reason"]
    assert meant.pop("tool_calls", None) == (None if old == "none" else CALLED)
    assert said == meant


def joined(parts: list[Any]) -> dict[str, Any]:
    """The whole of an answer's pieces: its text, its one call, and why it ended."""
    found: dict[str, Any] = {}
    for choice in (part["choices"][0] for part in parts):
        said = choice.get("message") or choice.get("delta") or {}
        for call in said.pop("tool_calls", None) or []:
            said["tool_calls"] = call["function"]
        for name, piece in said.items():
            old = found.get(name, type(piece)())
            found[name] = merged(old, piece) if isinstance(piece, dict) else old + (piece or "")
        found["reason"] = choice["finish_reason"] or found.get("reason")
    return found


def merged(old: dict[str, str], piece: dict[str, str]) -> dict[str, str]:
    return {name: old.get(name, "") + piece.get(name, "") for name in ("name", "arguments")}


def test_a_turn_of_functions_reads_as_one_of_tools(client, upstream) -> None:
    user = CHAT_BODY["messages"][0]
    old = [user, {"role": "assistant", "content": None, "function_call": CALLED}]
    old += [{"role": "function", "name": "now", "content": "Noon."}]
    call = {"type": "function", "function": CALLED}
    new = [user, {"role": "assistant", "content": None, "tool_calls": [call]}]
    new += [{"role": "tool", "name": "now", "content": "Noon."}]
    found = ask(client, upstream, {**CHAT_BODY, **FUNCTIONS, "messages": old})
    expected = ask(client, upstream, {**CHAT_BODY, **TOOLS, "messages": new})
    assert found[0] == 200 and found[1] == expected[1] and "Noon." in found[1][0]["text_input"]
    old[1]["function_call"] = {"name": "now", "arguments": "{"}
    _, _, text = ask(client, upstream, {**CHAT_BODY, **FUNCTIONS, "messages": old})
    assert json.loads(text)["error"]["param"] == "messages.1.function_call.arguments"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"function_call": {"name": "now"}}, "function_call"),
        ({**FUNCTIONS, "function_call": "required"}, "function_call"),
        ({**FUNCTIONS, "function_call": {"name": "other"}}, "function_call"),
        ({**FUNCTIONS, "tools": [TOOL]}, "tools"),
        ({**FUNCTIONS, "tool_choice": "auto"}, "tool_choice"),
        ({**FUNCTIONS, "parallel_tool_calls": True}, "parallel_tool_calls"),
        (
            {"functions": [{"name": "now", "parameters": {"type": 5}}], "function_call": None},
            "functions",
        ),
    ],
)
def test_what_functions_cant_mean_is_refused_by_their_own_name(client, upstream, fields, param):
    if param == "functions":
        fields = {**fields, "function_call": {"name": "now"}}
    status, _, text = ask(client, upstream, {**CHAT_BODY, **fields})
    assert (status, json.loads(text)["error"]["param"]) == (400, param)


BLOCKS = {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]}
DETAILS = {"reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "format": "x"}]}
DETAILS_2 = {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm.", "index": 0}]}


@pytest.mark.parametrize("told", [BLOCKS, DETAILS, DETAILS_2, BLOCKS | DETAILS])
def test_a_trace_is_read_by_any_of_its_names(client, upstream, told) -> None:
    def prompt(**fields: Any) -> Any:
        answer = {"role": "assistant", "content": "A", **fields}
        messages = [*CHAT_BODY["messages"], answer, *CHAT_BODY["messages"]]
        return ask(client, upstream, {**CHAT_BODY, "messages": messages})[:2]

    assert prompt(**told) == prompt(reasoning_content="Hm.")
    assert Message(role="assistant", **told).trace == "Hm."
    for name in ("reasoning_content", "reasoning"):
        assert Message(role="assistant", **{name: "So."}, **told).trace == "So."
        assert prompt(**{name: "So."}, **told) == prompt(**{name: "So."})


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("thinking_blocks", {"type": "redacted_thinking", "data": "x"}),
        ("reasoning_details", {"type": "reasoning.encrypted", "data": "x"}),
    ],
)
def test_a_trace_that_nobody_here_can_read_is_refused(client, upstream, name, block) -> None:
    answer = {"role": "assistant", "content": "A", name: [block]}
    messages = [*CHAT_BODY["messages"], answer, *CHAT_BODY["messages"]]
    status, _, text = ask(client, upstream, {**CHAT_BODY, "messages": messages})
    assert status == 400 and f"messages.1.{name}.0.type" in text


def test_a_custom_tool_is_refused_with_what_works(client, upstream) -> None:
    tool = {"type": "custom", "custom": {"name": "shell"}}
    status, _, text = ask(client, upstream, {**CHAT_BODY, "tools": [tool]})
    assert status == 400 and "'custom' are not supported; send functions, with" in text


DOORS = {
    "chat/completions": CHAT_BODY,
    "completions": {"model": "llm", "prompt": "Hi"},
    "responses": {"model": "llm", "input": "Hi"},
}


@pytest.mark.parametrize("door", DOORS)
def test_padded_pieces_have_few_sizes_and_say_the_same(client, door) -> None:
    def events(**options: Any) -> list[bytes]:
        body = {**DOORS[door], "stream": True, "stream_options": options}
        answer = client.post(f"/v1/{door}", json=body)
        assert answer.status_code == 200
        return [event + b"\n\n" for event in answer.content.split(b"\n\n") if b"{" in event]

    plain, padded = events(), events(include_obfuscation=True)
    assert len(plain) == len(padded) > 5
    num_padded = 0
    for bare, event in zip(plain, padded, strict=True):
        told = json.loads(event.split(b"data: ")[1])
        is_padded = "obfuscation" in told
        num_padded += is_padded
        assert not is_padded or len(event) % PADDED_BYTES == 0
        assert told.keys() - {"obfuscation"} == json.loads(bare.split(b"data: ")[1]).keys()
    assert num_padded > 3 if door == "responses" else num_padded == len(plain)
    body = {**DOORS[door], "stream_options": {"include_obfuscation": True}}
    assert "stream_options needs stream" in client.post(f"/v1/{door}", json=body).text
