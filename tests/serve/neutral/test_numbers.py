"""Numbers, biases and nulls of the API: in range, neutral, or refused by name."""

import json

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.serve.front.schema.openapi import openapi_document
from support.examples import up_to
from support.saying_upstream import CHAT_BODY, CHAT_VALUES, COMPLETION_BODY, COMPLETION_VALUES, ask


@pytest.mark.parametrize("body", [CHAT_BODY, COMPLETION_BODY])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_p", False),
        ("min_p", True),
        ("min_p", "0.1"),
        ("min_p", -0.01),
        ("min_p", 1.01),
        ("presence_penalty", True),
        ("logit_bias", []),
        ("logit_bias", ""),
        ("logit_bias", False),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"+1": 1}),
        ("logit_bias", {" 1": 1}),
        ("logit_bias", {"01": 1}),
        ("logit_bias", {"1.0": 1}),
        ("logit_bias", {"\N{ARABIC-INDIC DIGIT ONE}": 1}),
        ("logit_bias", {"9999999999": 1}),
        ("logit_bias", {"{loc}": 1}),
        ("logit_bias", {"5": 100.5}),
        ("logit_bias", {"5": -101}),
        ("logit_bias", {"5": True}),
        ("logit_bias", {"5": "1"}),
        ("logit_bias", {"5": None}),
        ("logit_bias", {"5": [1]}),
        ("logit_bias", {"5": 10**400}),
        ("logit_bias", {str(i): 1 for i in range(1025)}),
    ],
)
def test_bad_numbers_and_biases_are_400_and_name_the_field(
    client, upstream, body, name, value
) -> None:
    status, asked, text = ask(client, upstream, {**body, name: value})
    error = json.loads(text)["error"]
    assert (status, error["param"], asked) == (400, name, [])
    assert error["message"].startswith(f"{name}: ") and len(error["message"]) < 200
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ['"min_p": {}', '"logit_bias": {{"5": {}}}'])
def test_numbers_that_are_not_finite_are_400(client, number, field) -> None:
    raw = f'{{"model": "llm", "prompt": "Hi", {field.format(number)}}}'
    answer = client.post(
        "/v1/completions", content=raw, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert json.loads(answer.text)["error"]["message"]


KEYS = st.integers(-2, 10**10).map(str) | st.text(max_size=4).filter(lambda t: "\n" not in t)
ANY_BIASES = st.dictionaries(KEYS, st.floats(-101, 101) | st.integers(-101, 101), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=up_to(200))
@given(biases=ANY_BIASES)
def test_any_biases_reach_the_engine_whole_or_not_at_all(client, upstream, biases) -> None:
    is_legal = all(
        token.isascii() and token.isdigit() and str(int(token)) == token and len(token) < 10
        for token in biases
    ) and all(-100 <= bias <= 100 for bias in biases.values())
    status, asked, _ = ask(client, upstream, {**COMPLETION_BODY, "logit_bias": biases})
    assert status == (200 if is_legal else 400)
    published = {"$ref": "#/components/schemas/CompletionRequest"}
    published["components"] = openapi_document()["components"]
    validator = jsonschema.Draft202012Validator(published)
    assert validator.is_valid({**COMPLETION_BODY, "logit_bias": biases}) == is_legal
    if is_legal and biases:
        [inputs] = asked
        assert inputs["logit_bias_ids"] == [int(token) for token in biases]
        assert inputs["logit_bias_values"] == list(biases.values())
    elif is_legal:
        assert "logit_bias_ids" not in asked[0]


def test_best_of_n_is_neutral(client, upstream) -> None:
    plain = ask(client, upstream, {**COMPLETION_BODY, "n": 3})
    assert ask(client, upstream, {**COMPLETION_BODY, "n": 3, "best_of": 3}) == plain


@pytest.mark.parametrize("body", [CHAT_BODY, COMPLETION_BODY])
def test_a_null_is_a_field_that_is_not_given(client, upstream, body) -> None:
    values = CHAT_VALUES if body is CHAT_BODY else COMPLETION_VALUES
    plain = ask(client, upstream, body)
    assert ask(client, upstream, {**body, **dict.fromkeys(values)}) == plain
    assert ask(client, upstream, {**body, "whatever": None}) == plain
    for name in ("model", "messages", "prompt"):
        if name in body:
            status, _, text = ask(client, upstream, {**body, name: None} | {"messages": None})
            assert status in (400, 404) and "Field required" in text


@pytest.mark.parametrize(
    "change",
    [
        {"top_k": -1},
        {"stop": ""},
        {"stop": [""]},
        {"tools": []},
        {"tools": [], "tool_choice": "none"},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": False},
        {"response_format": {"type": "text"}},
        {"stream_options": {"include_usage": False}},
        {"stream_options": {"include_obfuscation": False}},
        {"logprobs": False},
        {"chat_template_kwargs": {}},
        {"min_p": 0},
        {"logit_bias": {}},
    ],
)
def test_values_of_our_own_fields_that_are_their_defaults(client, upstream, change) -> None:
    assert ask(client, upstream, {**CHAT_BODY, **change}) == ask(client, upstream, CHAT_BODY)
