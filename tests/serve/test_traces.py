"""Reasoning through the front and the engine host, over templates of several kinds."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.tiny.models import TINY_MODELS
from support.trace_stack import Client, ThinksAndAnswers, trace_stack

NVIDIA = load_chat_template(TINY_MODELS["tiny"])
assert NVIDIA is not None
QWEN3 = ChatTemplate(  # the model opens the trace, unless the prompt closes it
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
USER = [{"role": "user", "content": "what does <think> mean?"}]
PREFILL = [*USER, {"role": "assistant", "content": "I was just thinking.\nOf what"}]
NO_THINK = [{"role": "system", "content": "/no_think"}, *USER]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
JSON_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
Run = Callable[..., Any]


@pytest.fixture
def stack(opened, tmp_path: Path) -> Callable[..., Any]:
    """Return a context with a client of a model that says a thought and an answer."""

    @contextmanager
    def run(template: ChatTemplate, thought: Any, answer: Any = "") -> Iterator[Client]:
        def ids(text: Any) -> list[int]:
            if not isinstance(text, str):
                return [i for part in text for i in ids(part)]
            found = opened.tokenizer.token_id(text)
            encoded = opened.tokenizer.encode(text, add_special_tokens=False)
            return [found] if found is not None else encoded

        engine = ThinksAndAnswers(opened.tokenizer, ids(thought), ids(answer))
        with trace_stack(opened, template, engine, tmp_path) as client:
            yield client

    return run


def both(client: Client, **body: Any) -> tuple[str, str, str, int]:
    """Return a chat's answer, which is the same streamed and whole."""
    found = client.whole(temperature=0, **body)
    assert client.streamed(temperature=0, **body) == found
    return found


OPENERS = [  # template, messages, what the model writes before its first thought
    pytest.param(NVIDIA, USER, "", id="nvidia"),
    pytest.param(NVIDIA, PREFILL, "", id="nvidia-prefill"),
    pytest.param(QWEN3, USER, "<think>\n", id="qwen3"),
    pytest.param(QWEN3, PREFILL, "<think>\n", id="qwen3-prefill"),
]


@pytest.mark.parametrize(("template", "messages", "opening"), OPENERS)
def test_the_trace_is_split_from_the_content(stack, template, messages, opening) -> None:
    thought = f"{opening}One.\n\nTwo, {{}}.\n</think>\n\nIt is *so*.\n"
    with stack(template, thought) as client:
        reasoning, content, reason, _ = both(client, messages=messages)
    assert (reasoning, content, reason) == ("One.\n\nTwo, {}.", "It is *so*.\n", "stop")


@pytest.mark.parametrize(("template", "messages", "opening"), OPENERS)
@pytest.mark.parametrize("budget", [0, 2, 6, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_budget_holds(stack, template, messages, opening, budget) -> None:
    lines = "\n".join(f"line {number} of many" for number in range(40))
    with stack(template, f"{opening}{lines}\n</think>\n\nDone.", "Done.") as client:
        reasoning, content, reason, count = both(
            client, messages=messages, max_thinking_tokens=budget
        )
    assert (content, reason) == ("Done.", "stop")
    assert lines.startswith(reasoning)
    if budget == 10_000:
        assert reasoning == lines
    else:
        assert count < budget + 40 and reasoning.count("\n") <= 1 + budget // 3


@pytest.mark.parametrize(("template", "messages", "opening"), OPENERS)
@pytest.mark.parametrize("close", ["\n</think>\n\n", "</think>", "\n</think>\n"])
@pytest.mark.parametrize("budget", [None, 3])
def test_a_grammar_begins_behind_the_trace(
    stack, template, messages, opening, close, budget
) -> None:
    answer = '{"a": 7}'
    thought = f'{opening}{{"a": "no"}} I think.\nAnd more.{close}'
    with stack(template, thought + answer, answer) as client:
        body = {"response_format": JSON_FORMAT}
        if budget is not None:
            body["max_thinking_tokens"] = budget
        reasoning, content, reason, _ = both(client, messages=messages, **body)
    assert json.loads(content) == {"a": 7} and reason == "stop"
    expected = '{"a": "no"} I think.\nAnd more.'
    assert expected.startswith(reasoning) and (budget is not None or reasoning == expected)


@pytest.mark.parametrize(
    ("template", "messages", "kwargs"),
    [(NVIDIA, NO_THINK, {}), (QWEN3, USER, {"enable_thinking": False})],
)
def test_without_a_trace_a_grammar_begins_at_once(stack, template, messages, kwargs) -> None:
    with stack(template, '{"a": 7}') as client:
        found = both(
            client, messages=messages, response_format=JSON_FORMAT, chat_template_kwargs=kwargs
        )
    assert json.loads(found[1]) == {"a": 7} and found[0] == ""


def test_a_model_that_answers_at_once_where_it_might_think_keeps_its_grammar(stack) -> None:
    with stack(QWEN3, '{"a": 7}') as client:
        found = both(client, messages=USER, response_format=JSON_FORMAT, max_thinking_tokens=5)
    assert (found[0], json.loads(found[1])) == ("", {"a": 7})


@pytest.mark.parametrize("rest", ["{", '{"'])
def test_the_token_that_closes_the_trace_may_begin_the_answer(
    stack, opened, monkeypatch, rest
) -> None:
    """Tiny has no such token: `>>` is made to say `>{`, as the tokens of real vocabularies do."""
    both_in_one = opened.tokenizer.token_id(">>")
    decoder = type(opened.tokenizer).decoder

    def decoding(self: Any, **how: bool) -> Callable[[int], str]:
        decode = decoder(self, **how)
        return lambda token: f">{rest}" if token == both_in_one else decode(token)

    monkeypatch.setattr(type(opened.tokenizer), "decoder", decoding)
    tail = '{"a": 7}'.removeprefix(rest)
    with stack(NVIDIA, ["hm", "</", "think", ">>", tail]) as client:
        reasoning, content, reason, _ = both(client, messages=USER, response_format=JSON_FORMAT)
    assert (reasoning, json.loads(content), reason) == ("hm", {"a": 7}, "stop")


@pytest.mark.parametrize(("template", "messages", "opening"), OPENERS)
@pytest.mark.parametrize("stop", ["\n\n", "Two", "think", "</think>", "<", "\n"])
def test_stop_strings_end_the_answer_alone(stack, template, messages, opening, stop) -> None:
    thought = f"{opening}One.\n\nTwo <b>.\n</think>\n\nYes."
    with stack(template, thought) as client:
        found = both(client, messages=messages, stop=[stop])
    assert found[:3] == ("One.\n\nTwo <b>.", "Yes.", "stop")
    with stack(template, f"{thought} And{stop}more") as client:
        assert both(client, messages=messages, stop=[stop])[1] == "Yes. And"


@pytest.mark.parametrize(
    ("template", "messages", "kwargs"),
    [
        (NVIDIA, NO_THINK, {}),
        (QWEN3, USER, {"enable_thinking": False}),
        (NVIDIA, [*USER, {"role": "assistant", "content": "I know.</think>"}], {}),
    ],
)
def test_newlines_behind_a_tag_of_the_prompt_stop_nothing(
    stack, template, messages, kwargs
) -> None:
    with stack(template, "\n\nYes.\n\nNo.") as client:
        found = both(client, messages=messages, stop="\n\n", chat_template_kwargs=kwargs)
    assert found[:3] == ("", "Yes.", "stop")


@pytest.mark.parametrize(("template", "messages", "opening"), OPENERS)
def test_a_text_with_a_grammar_does_not_end_within_its_trace(
    stack, template, messages, opening
) -> None:
    """Else an empty content would pass for an answer by `stop`."""
    with stack(template, f"{opening}One.") as client:
        found = both(client, messages=messages, response_format=JSON_FORMAT, max_tokens=40)
    assert found[1:] == ("", "length", 40)


def test_where_the_trace_is_content_a_stop_string_ends_it(stack) -> None:
    with stack(NVIDIA, "One.\n\nTwo.</think>\n\nYes.") as client:
        found = both(client, messages=USER, stop=["\n\n"], separate_reasoning=False)
    assert found[:3] == ("", "One.", "stop")


@pytest.mark.parametrize(("template", "messages", "opening"), OPENERS)
@pytest.mark.parametrize("is_split", [True, False])
def test_the_tag_that_a_budget_forces_stops_nothing(
    stack, template, messages, opening, is_split
) -> None:
    with stack(template, f"{opening}One.\nTwo.\n", "Yes.") as client:
        found = both(
            client,
            messages=messages,
            stop=["\n\n", "</think>"],
            max_thinking_tokens=1,
            separate_reasoning=is_split,
        )
    assert found[1].endswith("Yes.") and found[2] == "stop"


@pytest.mark.parametrize("min_tokens", [0, 3, 6])
def test_stop_strings_wait_for_min_tokens(stack, min_tokens) -> None:
    with stack(NVIDIA, ["a", "b", "a", "b", "a", "b", "a", "c"]) as client:
        _, content, _, count = both(client, messages=NO_THINK, stop=["b"], min_tokens=min_tokens)
    assert (content, count) == {0: ("a", 2), 3: ("aba", 4), 6: ("ababa", 6)}[min_tokens]


@pytest.mark.parametrize(
    ("prompt", "said", "expected"),
    [
        ("Q?\n<think>\n", "One.\n\nTwo.</think>\n\nYes.\n\nNo.", "One.\n\nTwo.</think>\n\nYes."),
        ("Q?\n<think>One</think>", "Yes.\n\nNo.", "Yes."),
        ("Once upon a time", " there was.\n\nThe end.", " there was."),
    ],
)
def test_completions_follow_the_prompts_own_text(stack, prompt, said, expected) -> None:
    with stack(NVIDIA, said) as client:
        answer = client.post(
            "completions", prompt=prompt, stop="\n\n", temperature=0, max_tokens=100
        )
    assert answer.json()["choices"][0]["text"] == expected


def test_a_budget_on_a_raw_prompt_holds_where_the_model_opens_a_trace(stack) -> None:
    with stack(NVIDIA, "<think>\nOne.\nTwo.\nThree.", "Yes.") as client:
        answer = client.post(
            "completions", prompt="Q?", temperature=0, max_tokens=100, max_thinking_tokens=3
        )
    assert "Three." not in (text := answer.json()["choices"][0]["text"])
    assert text.endswith("</think>\n\nYes.")


@pytest.mark.parametrize(
    ("template", "messages", "kwargs", "temperature"),
    [
        (NVIDIA, USER, {}, 0.6),
        (NVIDIA, PREFILL, {}, 0.6),
        (NVIDIA, NO_THINK, {}, 0.0),
        (QWEN3, USER, {}, 0.6),
        (QWEN3, USER, {"enable_thinking": False}, 0.0),
    ],
)
def test_the_cards_settings_follow_the_same_turn(template, messages, kwargs, temperature) -> None:
    from nemotrt.engines.text.chat.turn import read_turn
    from nemotrt.serve.front.openai.inputs import chat_inputs
    from nemotrt.serve.front.schema.requests import ChatRequest

    request = ChatRequest(model="llm", messages=messages)
    prompt = template.render(messages, variables=kwargs)
    turn = read_turn(prompt, template)
    inputs = chat_inputs(request, prompt, turn, separate_reasoning=True)
    assert inputs["temperature"] == temperature
