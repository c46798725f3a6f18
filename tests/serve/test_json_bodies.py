"""What JSON leaves open is one thing here: names given twice, and a byte order mark."""

import codecs
import json
from typing import Any

import pytest

from nemotrt.errors import ConfigError
from nemotrt.serve.front.doors.prepare import prepare
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.prepare import CallSettings
from nemotrt.serve.grammar.json_schema import read_schema
from nemotrt.serve.requests.endpoints import Endpoint
from support.saying_upstream import FILES

SETTINGS = CallSettings(("llm",), FILES, separate_reasoning=True)
CHAT = {"model": "llm", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
BODIES: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: CHAT,
    Endpoint.CHAT_TOKENS: CHAT,
    Endpoint.COMPLETIONS: {"model": "llm", "prompt": "Hi"},
    Endpoint.MESSAGES: CHAT,
    Endpoint.COUNT_TOKENS: {"model": "llm", "messages": CHAT["messages"]},
    Endpoint.RESPONSES: {"model": "llm", "input": "Hi"},
    Endpoint.RESPONSE_TOKENS: {"model": "llm", "input": "Hi"},
    Endpoint.TOKENIZE: {"model": "llm", "prompt": "Hi"},
    Endpoint.DETOKENIZE: {"model": "llm", "tokens": [5]},
}


@pytest.mark.parametrize("endpoint", Endpoint)
def test_a_name_given_twice_is_refused_at_every_door(endpoint) -> None:
    """Python's json takes the last, RapidJSON (Triton) the first: a gateway may see another one."""
    raw = json.dumps(BODIES[endpoint]).encode()
    prepare(endpoint, raw, SETTINGS)
    with pytest.raises(ApiError, match="'model' stands twice") as caught:
        prepare(endpoint, b'{"model":"llm",' + raw[1:], SETTINGS)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "more",
    [
        '"messages":[{"role":"user","content":"a","content":"b"}]',
        '"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"a","name":"b"}}]',
        '"messages":[{"role":"user","content":"a"}],"guided_json":{"type":"null","type":"object"}',
        r'"messages":[{"role":"user","content":"a"}],"guided_json":"{\"a\":1,\"a\":2}"',
        r'"messages":[{"role":"user","cont\u0065nt":"a","content":"b"}]',
    ],
)
def test_a_name_given_twice_is_refused_within(more) -> None:
    with pytest.raises(ApiError, match="stands twice") as caught:
        prepare(Endpoint.CHAT, f'{{"model":"llm",{more}}}'.encode(), SETTINGS)
    assert caught.value.status == 400


def test_a_schema_of_tritons_names_nothing_twice() -> None:
    with pytest.raises(ConfigError, match="'type' stands twice in one object"):
        read_schema('{"type": "object", "type": "string"}')
    assert read_schema('{"a": {"x": 1}, "b": {"x": 1}}') == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_byte_order_mark_is_passed_over() -> None:
    """RFC 8259, 8.1: a reader may ignore one, which no writer must add."""
    raw = json.dumps(CHAT).encode()
    plain, marked = (prepare(Endpoint.CHAT, b + raw, SETTINGS) for b in (b"", codecs.BOM_UTF8))
    assert plain.call.inputs == marked.call.inputs
    with pytest.raises(ApiError, match="Invalid JSON"):
        prepare(Endpoint.CHAT, 2 * codecs.BOM_UTF8 + raw, SETTINGS)


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "parameters": {"type": "object", "properties": more}}


@pytest.mark.parametrize("form", ["chat", "messages", "responses"])
def test_two_tools_of_one_name_are_refused(form) -> None:
    """A call could mean either; one that is given twice means itself."""
    first, other = function("a", x={"type": "integer"}), function("a", y={"type": "string"})

    def ask(*told: dict[str, Any]) -> None:
        if form == "chat":
            tools = [{"type": "function", "function": one} for one in told]
            prepare(Endpoint.CHAT, json.dumps({**CHAT, "tools": tools}).encode(), SETTINGS)
        elif form == "messages":
            tools = [{"name": one["name"], "input_schema": one["parameters"]} for one in told]
            prepare(Endpoint.MESSAGES, json.dumps({**CHAT, "tools": tools}).encode(), SETTINGS)
        else:
            tools = [{"type": "function", "strict": False, **one} for one in told]
            body = BODIES[Endpoint.RESPONSES] | {"tools": tools}
            prepare(Endpoint.RESPONSES, json.dumps(body).encode(), SETTINGS)

    ask(first, first)
    ask(first, function("A"))
    with pytest.raises(ApiError, match="'a' is another tool's name already") as caught:
        ask(first, other)
    assert caught.value.status == 400 and "tools" in (caught.value.param or "")
