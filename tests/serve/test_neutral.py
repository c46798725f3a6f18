"""Every field of the API has an effect, can't change the answer, or is refused by name."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.schema import requests as schema
from nemotrt.serve.front.schema.neutral import CHAT, COMPLETION, MESSAGE
from nemotrt.serve.front.schema.openapi import openapi_document
from support.saying_upstream import FILES, SayingUpstream

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CHAT_BODY: dict[str, Any] = {"model": "llm", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION_BODY: dict[str, Any] = {"model": "llm", "prompt": "Hi you"}
# A value of each field of ours that asks for something else than leaving it out does.
BOTH_VALUES: dict[str, Any] = {
    "max_tokens": 7,
    "temperature": 0.3,
    "top_p": 0.4,
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "stop": ["x", "y"],
    "seed": 5,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "user": "ada",
    "metadata": {"a": "b"},
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "top_k": 4,
    "repetition_penalty": 1.5,
    "min_tokens": 3,
    "ignore_eos": True,
    "stop_token_ids": [9],
    "priority": -2,
    "timeout_ms": 5000,
    "prompt_logprobs": 1,
    "min_p": 0.1,
    "logit_bias": {"5": 1},
    "cache_salt": "ours",
    "session_id": "s",
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a+"},
    "guided_json": {"type": "array"},
    "guided_regex": "b+",
    "guided_choice": ["a", "b"],
    "guided_grammar": 'start: "a"',
    "max_thinking_tokens": 4,
    "thinking_token_budget": 5,
    "nvext": {"max_thinking_tokens": 6},
    "include_stop_str_in_output": True,
    "skip_special_tokens": False,
    "bad_words": ["cat"],
    "return_token_ids": True,
}
CHAT_VALUES: dict[str, Any] = {
    **BOTH_VALUES,
    "max_completion_tokens": 6,
    "logprobs": True,
    "top_logprobs": 2,
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "separate_reasoning": False,
    "include_reasoning": False,
    "reasoning_effort": "none",
    "chat_template_kwargs": {"enable_thinking": False},
    "add_generation_prompt": False,
    "continue_final_message": True,
    "truncate_prompt_tokens": 8,
}
COMPLETION_VALUES: dict[str, Any] = {
    **BOTH_VALUES,
    "logprobs": 2,
    "echo": True,
    "add_special_tokens": False,
    "truncate_prompt_tokens": 2,
}
# Bounds of which another field's is the lower one, or which have nothing to bound; a forced call
# leaves no content that could have a format.
MASKED = {
    ("response_format", "response_format", "tool_choice"),
    ("chat_template_kwargs", "reasoning_effort", "chat_template_kwargs"),
    ("reasoning_effort", "reasoning_effort", "chat_template_kwargs"),
    ("max_tokens", "max_tokens", "max_completion_tokens"),
    ("max_thinking_tokens", "max_thinking_tokens", "chat_template_kwargs"),
}
# What can't change an answer: names of whoever asks.
IDLE = {"user", "metadata", "safety_identifier", "prompt_cache_key", "session_id"}
# What needs another field beside it to mean something.
COMPANY: dict[str, dict[str, Any]] = {
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
    "tool_choice": {"tools": [TOOL]},
    "parallel_tool_calls": {"tools": [TOOL]},
}


@pytest.fixture
def upstream() -> SayingUpstream:
    return SayingUpstream()


class Client:
    """Posts to an application in this thread's own loop, several times as fast as TestClient."""

    def __init__(self, app: Any, runner: asyncio.Runner) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self._runner = runner

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self._runner.run(self._client.post(path, **body))


@pytest.fixture
def client(upstream) -> Iterator[Client]:
    with asyncio.Runner() as runner:
        yield Client(create_app(FrontSpec("llm", FILES, upstream)), runner)


def ask(client: Client, upstream: SayingUpstream, body: Any) -> tuple[int, Any, Any]:
    """Return the status, what reached the engine, and the answer without what is random."""
    upstream.asked.clear()
    path = "chat/completions" if "messages" in body else "completions"
    answer = client.post(f"/v1/{path}", json=body)
    text = answer.text
    if answer.is_success:
        parts = [json.loads(p) for p in text.split("data: ") if p.strip().startswith("{")]
        for part in parts:
            del part["id"], part["created"]
            for choice in part["choices"]:
                for message in (choice.get("message") or {}, choice.get("delta") or {}):
                    for call in message.get("tool_calls") or []:
                        call.pop("id", None)
        text = json.dumps(parts)
    return answer.status_code, list(upstream.asked), text


def fields_of(model: type[schema.Sampling]) -> set[str]:
    return set(model.model_fields) - {"model", "messages", "prompt"}


@pytest.mark.parametrize(
    ("model", "values"),
    [(schema.ChatRequest, CHAT_VALUES), (schema.CompletionRequest, COMPLETION_VALUES)],
)
def test_the_sweeps_know_every_field(model, values) -> None:
    assert set(values) == fields_of(model)


CASES = [(CHAT_BODY, n) for n in CHAT_VALUES] + [(COMPLETION_BODY, n) for n in COMPLETION_VALUES]


@pytest.mark.parametrize(("body", "name"), CASES)
def test_each_field_alone_has_an_effect_or_is_refused(client, upstream, body, name) -> None:
    values = CHAT_VALUES if body is CHAT_BODY else COMPLETION_VALUES
    beside = {**body, **COMPANY.get(name, {})}
    plain = ask(client, upstream, beside)
    found = ask(client, upstream, {**beside, name: values[name]})
    assert plain[0] == 200 and found[0] in (200, 400)
    if name in IDLE:
        assert found == plain
    elif found[0] == 200:
        assert found[1:] != plain[1:], f"{name} has no effect"
    else:
        assert name in json.loads(found[2])["error"]["message"]


PAIRS = [
    (body, pair)
    for body, values in ((CHAT_BODY, CHAT_VALUES), (COMPLETION_BODY, COMPLETION_VALUES))
    for pair in itertools.combinations(values, 2)
]


def test_no_pair_of_fields_makes_a_fault_or_silences_one_of_them(client, upstream) -> None:
    """What a field changes alone, it changes beside any other field too, or the pair is a 400."""
    seen: dict[str, tuple[int, Any, Any]] = {}

    def asked(body: dict[str, Any]) -> tuple[int, Any, Any]:
        key = json.dumps(body, sort_keys=True)
        if key not in seen:
            seen[key] = ask(client, upstream, body)
        return seen[key]

    silent = []
    for body, (left, right) in PAIRS:
        values = CHAT_VALUES if body is CHAT_BODY else COMPLETION_VALUES
        company = COMPANY.get(left, {}) | COMPANY.get(right, {})
        together = {**body, **company, left: values[left], right: values[right]}
        both = asked(together)
        assert both[0] in (200, 400), (left, right, both)
        if both[0] == 400:
            continue
        for name in {left, right} - IDLE:
            without = {k: v for k, v in together.items() if k != name} | {
                k: v for k, v in company.items() if k == name
            }
            if without != together and asked(without)[1:] == both[1:]:
                silent.append((name, left, right))
    assert set(silent) <= MASKED


NEUTRAL = [
    (body, name, value)
    for body, table in ((CHAT_BODY, CHAT), (COMPLETION_BODY, COMPLETION))
    for name, neutral in table.items()
    for value in neutral.values
]


@pytest.mark.parametrize(("body", "name", "value"), NEUTRAL)
def test_neutral_values_change_nothing(client, upstream, body, name, value) -> None:
    plain = ask(client, upstream, body)
    assert ask(client, upstream, {**body, name: value}) == plain
    assert ask(client, upstream, {**body, name: None}) == plain


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        (COMPLETION_BODY, "best_of", True),
        (COMPLETION_BODY, "best_of", 2),
        (COMPLETION_BODY, "suffix", "x"),
        (COMPLETION_BODY, "use_beam_search", True),
        (COMPLETION_BODY, "length_penalty", 2),
        (COMPLETION_BODY, "anything", 1),
        (CHAT_BODY, "store", True),
        (CHAT_BODY, "service_tier", "flex"),
        (CHAT_BODY, "modalities", ["text", "audio"]),
        (CHAT_BODY, "functions", [{"name": "f"}]),
        (CHAT_BODY, "function_call", {"name": "f"}),
    ],
)
def test_other_values_are_refused_by_name(client, upstream, body, name, value) -> None:
    status, _, text = ask(client, upstream, {**body, name: value})
    error = json.loads(text)["error"]
    assert (status, error["param"]) == (400, name)
    assert error["message"].startswith(f"{name} is not supported")


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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
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


def message(**fields: Any) -> dict[str, Any]:
    answer = {"role": "assistant", "content": "A", **fields}
    user = {"role": "user", "content": "Hi"}
    return {"model": "llm", "messages": [user, answer, user]}


@pytest.mark.parametrize("name", [*MESSAGE, "images", "thinking_blocks", "tool_calls", "name"])
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
        assert not validator.is_valid({**body, "model": None})


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
