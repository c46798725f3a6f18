"""Structured output through the whole stack: the shipped tiny models, Triton and the front."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState

pytestmark = pytest.mark.triton
JSON = {"content-type": "application/json"}
LIMITS = Limits(max_batch_size=8, max_seq_len=2048, chunk_tokens=64)
COLOURS = {"enum": ["red", "blue"]}
PAIR = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
# as pydantic writes a nested model; both tools have a definition of the same name
PERSON = {
    "type": "object",
    "$defs": {
        "A": {
            "type": "object",
            "properties": {"colour": COLOURS, "next": {"anyOf": [{"type": "null"}]}},
            "required": ["colour"],
            "additionalProperties": False,
        }
    },
    "properties": {"a": {"$ref": "#/$defs/A"}, "$ref": {"type": "boolean"}},
    "required": ["a", "$ref"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/A",
    "$defs": {
        "A": {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/B~1%C3%A9"}, "é": {"const": "ü ]}\u2028"}},
            "required": ["é"],
            "additionalProperties": False,
        },
        "B/é": {"type": "null"},
    },
}
PARAMETERS = {"person": PERSON, "Tree.of-x_1": TREE}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in PARAMETERS.items()
]
NAMED: Any = {"type": "function", "function": {"name": "person"}}


SLOW_TINY = pytest.param("tiny", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["tiny-dense over triton", SLOW_TINY])
def server(request, tmp_path_factory, triton_runtime) -> Iterator[ServerState]:
    model, _, way = request.param.partition(" over ")
    folder: Path = tmp_path_factory.mktemp("grammar") / "engine"
    build_engine(TINY_MODELS[model], folder, BuildSpec(limits=LIMITS))
    options = [] if way else ["--no-triton"]
    with serve_engine(folder, "--threads", "1", *options, drain_s=5) as state:
        yield state


@pytest.fixture
def client(server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:
        yield client


def asked(text: str = "Say something.") -> Any:
    return [{"role": "system", "content": "/no_think"}, {"role": "user", "content": text}]


def wanted(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def answer(client: openai.OpenAI, **request: Any) -> Any:
    request = {"model": "llm", "messages": asked(), "max_tokens": 160, "temperature": 0, **request}
    return client.chat.completions.create(**request).choices[0]


def streamed(client: openai.OpenAI, **request: Any) -> tuple[str, list[tuple[str, str]], str]:
    """Return (content, [(name, arguments)], finish reason) of a streamed answer."""
    request = {"model": "llm", "messages": asked(), "max_tokens": 160, "temperature": 0, **request}
    content, reason = "", ""
    calls: list[list[str]] = []
    for chunk in client.chat.completions.create(stream=True, **request):
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or []:
                if part.index == len(calls):
                    calls.append([part.function.name, ""])
                calls[part.index][1] += part.function.arguments
    return content, [(name, arguments) for name, arguments in calls], reason


@pytest.mark.parametrize("change", [{}, {"extra_body": {"ignore_eos": True, "min_tokens": 100}}])
def test_an_enum_is_the_whole_answer(client, change) -> None:
    choice = answer(client, response_format=wanted(COLOURS), **change)
    assert choice.message.content in ('"red"', '"blue"') and choice.finish_reason == "stop"
    whole = (choice.message.content, [], "stop")
    assert streamed(client, response_format=wanted(COLOURS), **change) == whole


def test_a_boolean_and_an_integer_end_at_every_seed(client) -> None:
    for seed in range(12):
        request = {"response_format": wanted(PAIR), "temperature": 0.7, "seed": seed}
        choice = answer(client, **request, max_tokens=600)  # the integer may be long
        assert choice.finish_reason == "stop", choice.message.content
        jsonschema.validate(json.loads(choice.message.content), PAIR)


def test_a_truncated_answer_says_so(client) -> None:
    choice = answer(client, response_format=wanted(PAIR), max_tokens=2)
    assert choice.finish_reason == "length"
    text, _, reason = streamed(client, response_format=wanted(PAIR), max_tokens=2)
    assert (text, reason) == (choice.message.content, "length")


def test_json_object_is_one_object(client) -> None:
    for seed in range(2):
        choice = answer(client, response_format={"type": "json_object"}, temperature=1, seed=seed)
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length"


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_forced_call_is_the_whole_answer(client, choice) -> None:
    for seed in range(2):
        request = {"tools": TOOLS, "tool_choice": choice, "temperature": 0.7, "seed": seed}
        found = answer(client, **request)
        assert not found.message.content
        assert found.finish_reason == "tool_calls" or len(found.message.tool_calls) > 3
        for call in found.message.tool_calls:
            assert choice == "required" or call.function.name == "person"
            if found.finish_reason == "tool_calls":
                arguments = json.loads(call.function.arguments)
                jsonschema.validate(arguments, PARAMETERS[call.function.name])
        calls = [(c.function.name, c.function.arguments) for c in found.message.tool_calls]
        assert streamed(client, **request) == ("", calls, found.finish_reason)


def test_a_format_beside_tools_is_calls_or_the_answer(client) -> None:
    for seed in range(3):
        request = {"tools": TOOLS, "response_format": wanted(COLOURS), "temperature": 2}
        found = answer(client, **request, seed=seed)
        if found.message.tool_calls:
            assert not found.message.content
        else:
            assert found.message.content in ('"red"', '"blue"') and found.finish_reason == "stop"
    off = answer(client, tools=TOOLS, tool_choice="none", response_format=wanted(COLOURS))
    assert off.message.content in ('"red"', '"blue"')


SCHEMAS_400: list[tuple[Any, str]] = [
    ({"type": "integer", "minimum": 1e300}, "integer range"),
    ({"const": 10**400}, "beyond 2^53"),
    ({"type": "string", "pattern": "("}, "unclosed group"),
    ({"$ref": "#/$defs/A"}, "does not exist"),
    ({"$ref": "https://example.com/schema.json"}, "does not fetch"),
    ({"not": {}}, "Unimplemented keys"),
    ({"enum": []}, "Unsatisfiable"),
    ({"x-guidance": {"whitespace_flexible": True}}, "x-guidance is not supported"),
    ({}, "needs a schema"),
]


@pytest.mark.parametrize(("schema", "reason"), SCHEMAS_400)
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_does_not_hold_is_a_400(server, schema, reason, stream) -> None:
    body = {"model": "llm", "messages": asked(), "max_tokens": 5, "stream": stream}
    formats = {"response_format": wanted(schema)}
    if not schema:
        formats = {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}
    inside = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": inside}}
    ways = [formats, {"tools": [tool], "tool_choice": "required"}]
    for way in ways if schema else ways[:1]:
        found = httpx.post(f"{server.openai_url}/chat/completions", json=body | way)
        message = found.json()["error"]["message"]
        assert (found.status_code, reason in message) == (400, True), message


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400, "1" + "0" * 5000]
)
def test_a_number_that_json_has_not_is_a_400(server, number) -> None:
    format_ = f'{{"type": "json_schema", "json_schema": {{"schema": {{"const": {number}}}}}}}'
    messages = json.dumps(asked())
    body = f'{{"model": "llm", "messages": {messages}, "response_format": {format_}}}'
    found = httpx.post(f"{server.openai_url}/chat/completions", content=body, headers=JSON)
    assert found.status_code == 400, found.text


def test_a_deep_schema_is_a_400(server) -> None:
    for depth in (150, 1000, 10_000):
        schema = '{"items":' * depth + "{}" + "}" * depth
        format_ = f'{{"type": "json_schema", "json_schema": {{"schema": {schema}}}}}'
        body = (
            f'{{"model": "llm", "messages": {json.dumps(asked())}, "response_format": {format_}}}'
        )
        found = httpx.post(f"{server.openai_url}/chat/completions", content=body, headers=JSON)
        assert found.status_code == 400, found.text


def test_parameters_are_of_an_object(client) -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
    with pytest.raises(openai.BadRequestError, match="must be an object's schema"):
        answer(client, tools=[tool], tool_choice="required")
    tool["function"].pop("parameters")
    found = answer(client, tools=[tool], tool_choice="required", temperature=0)
    assert json.loads(found.message.tool_calls[0].function.arguments) == {}


def test_a_grammar_that_fails_under_way_is_an_error(server, client) -> None:
    """Its second row is too large for the parser, which a first mask does not show."""
    names = {f"p{i}": {"type": "null"} for i in range(3000)}
    schema = {"type": "object", "properties": names, "additionalProperties": False}
    with pytest.raises(openai.InternalServerError, match="max is 4000"):
        answer(client.with_options(max_retries=0), response_format=wanted(schema))
    body = {"model": "llm", "messages": asked(), "stream": True, "temperature": 0}
    body["response_format"] = wanted(schema)
    found = httpx.post(f"{server.openai_url}/chat/completions", json=body, timeout=30)
    events = [line[6:] for line in found.text.splitlines() if line.startswith("data: ")]
    if found.status_code == 200:
        assert "max is 4000" in json.loads(events[-2])["error"]["message"]
        content = [json.loads(event)["choices"][0]["delta"].get("content") for event in events[:-2]]
        assert "".join(content).strip() in ("{", "{}", '{"')
    else:
        assert found.status_code == 500
    assert answer(client, response_format=wanted(COLOURS)).finish_reason == "stop"


GUIDES_400 = [
    ({"guided_decoding_guide_type": "zebra", "guided_decoding_guide": "x"}, "unknown"),
    ({"guided_decoding_guide": "(yes|no)"}, "needs guided_decoding_guide_type"),
    ({"guided_decoding_guide_type": "", "guided_decoding_guide": "x"}, "needs guided_decoding"),
    ({"guided_decoding_guide_type": "regex"}, "needs a guided_decoding_guide"),
    ({"guided_decoding_guide_type": "lark", "guided_decoding_guide": " "}, "needs a guided"),
    ({"guided_decoding_guide_type": "json_schema"}, "needs a guided_decoding_guide"),
    ({"guided_decoding_guide_type": "json", "guided_decoding_guide": "{}"}, "takes no guide"),
]


def test_triton_keeps_a_regex_and_refuses_half_a_guide(server) -> None:
    if not server.http_url:
        return  # the other server's
    url = f"{server.http_url}/v2/models/llm/generate"
    body = {"text_input": "Is it?", "max_tokens": 50}
    guide = {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "(yes|no)"}
    for change in ({}, {"min_tokens": 40}, {"ignore_eos": True}, {"temperature": 1.0, "seed": 3}):
        found = httpx.post(url, json=body | guide | change).json()
        assert found["text_output"] in ("yes", "no") and found["finish_reason"] == "stop", found
    for fields, reason in GUIDES_400:
        found = httpx.post(url, json=body | fields)
        assert found.status_code != 200 and reason in found.text, found.text
        assert "invalid_request" in found.text
    neutral = {"guided_decoding_guide_type": "", "guided_decoding_guide": ""}
    assert httpx.post(url, json=body | neutral).status_code == 200
