"""Messages, formats and forced calls of a chat: neutral, or refused in plain words."""

import json

import jsonschema
import pytest

from nemotrt.serve.front.schema.neutral import CHAT, COMPLETION, MESSAGE
from nemotrt.serve.front.schema.openapi import openapi_document
from support.saying_upstream import (
    CHAT_BODY,
    CHAT_VALUES,
    COMPLETION_BODY,
    COMPLETION_VALUES,
    FILES,
    TOOL,
    ask,
    message,
)


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_a_schema_beside_another_format_is_refused(client, upstream, kind) -> None:
    wanted = {"type": kind, "json_schema": {"name": "x", "schema": {"type": "object"}}}
    status, _, text = ask(client, upstream, {**CHAT_BODY, "response_format": wanted})
    assert status == 400 and "json_schema goes with type 'json_schema' alone" in text


def test_two_bounds_of_the_output_hold_together(client, upstream) -> None:
    for pair in ((7, 5), (5, 7)):
        bounds = dict(zip(("max_tokens", "max_completion_tokens"), pair, strict=True))
        _, [inputs], _ = ask(client, upstream, {**CHAT_BODY, **bounds})
        assert inputs["max_tokens"] == 5


NOW_TAKEN = ("thinking_blocks", "reasoning_details", "function_call")


@pytest.mark.parametrize("name", [*MESSAGE, "images", *NOW_TAKEN, "tool_calls", "name"])
@pytest.mark.parametrize("value", [None, [], "", {}])
def test_empty_fields_of_a_message_change_nothing(client, upstream, name, value) -> None:
    if name in ("tool_calls", "name") and not (value is None or (value == []) is (name != "name")):
        return  # of another type than the field
    if name == "name" and value is not None:
        return
    assert ask(client, upstream, message(**{name: value})) == ask(client, upstream, message())


@pytest.mark.parametrize("name", [*MESSAGE, "images"])
def test_other_fields_of_a_message_are_refused_by_name(client, upstream, name) -> None:
    status, _, text = ask(client, upstream, message(**{name: [{"x": 1}]}))
    assert status == 400 and f"messages.1.{name} is not supported" in text


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image_url", "image_url": {"url": "data:,"}}, "images are not supported"),
        ({"type": "input_audio", "input_audio": {}}, "audio clips are not supported"),
        ({"type": "refusal", "refusal": "no"}, "parts of type 'refusal' are not supported"),
        ({"type": "text"}, "messages.0.content.0.text: Field required"),
        ({"type": "text", "text": "x", "y": 1}, "messages.0.content.0.y is not supported"),
        ("x", "messages.0.content.0: Input should be"),
    ],
)
def test_parts_are_refused_in_plain_words(client, upstream, part, words) -> None:
    body = {"model": "llm", "messages": [{"role": "user", "content": [part]}]}
    status, _, text = ask(client, upstream, body)
    assert status == 400 and words in json.loads(text)["error"]["message"]
    assert "constrained-str" not in text and "TextPart" not in text
    status, _, text = ask(client, upstream, {**body, "messages": [{"role": "user", "content": 5}]})
    assert status == 400 and "should be a text or a list of text parts" in text


def test_the_document_says_what_is_taken() -> None:
    """Bodies with neutral values and nulls fit the published schema, and others do not."""
    document = openapi_document()
    for name, body, table in (
        ("ChatRequest", CHAT_BODY, CHAT),
        ("CompletionRequest", COMPLETION_BODY, COMPLETION),
    ):
        published = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        validator = jsonschema.Draft202012Validator(published)
        values = CHAT_VALUES if body is CHAT_BODY else COMPLETION_VALUES
        assert validator.is_valid({**body, **dict.fromkeys(values)})
        for field, neutral in table.items():
            for value in (*neutral.values, None):
                assert validator.is_valid({**body, field: value}), field
            assert not validator.is_valid({**body, field: "another"}), field
        assert not validator.is_valid({**body, "model": 5})


CALLS = (
    'First.\n<TOOLCALL>[{"name": "now", "arguments": {"a": 1}}, {"name": "now", "arguments": '
    '{"a": 2}}]</TOOLCALL> and more'
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function"}])
def test_one_call_ends_an_answer_that_may_have_one(client, upstream, stream, n, choice) -> None:
    if isinstance(choice, dict):
        choice = {**choice, "function": {"name": "now"}}
    upstream.said, upstream.pause_s = f"</think>{CALLS}", 0.002
    body = {**CHAT_BODY, "tools": [TOOL], "stream": stream, "n": n, "tool_choice": choice}
    many = json.loads(ask(client, upstream, body)[2])
    single = {**body, "parallel_tool_calls": False, "stream_options": {"include_usage": True}}
    if not stream:
        del single["stream_options"]
    parts = json.loads(ask(client, upstream, single)[2])
    for index in range(n):
        choices = [c for part in parts for c in part["choices"] if c["index"] == index]
        messages = [c["delta"] if stream else c["message"] for c in choices]
        calls = [call for m in messages for call in m.get("tool_calls") or []]
        assert "".join(call["function"]["arguments"] for call in calls) == '{"a": 1}'
        assert "".join(m.get("content") or "" for m in messages) == "First."
        assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["tool_calls"]
    assert upstream.num_left == n  # the engine was told to stop
    usage = next(part["usage"] for part in reversed(parts) if part["usage"])
    assert usage["prompt_tokens"] == 3
    whole = len(FILES.tokenizer.encode(upstream.said, add_special_tokens=False))  # type: ignore[union-attr]
    assert 0 < usage["completion_tokens"] < n * whole
    assert "".join(json.dumps(part) for part in many).count('"now"') == 2 * n
