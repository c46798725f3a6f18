"""Reasoning, tools and the thinking budget, through the `openai` package and the whole stack."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState

pytestmark = pytest.mark.triton
TESTS = Path(__file__).parents[1]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "calculate_tip",
            "parameters": {
                "type": "object",
                "properties": {"bill_total": {"type": "integer"}},
                "required": ["bill_total"],
            },
        },
    }
]
CALLS = (
    '<TOOLCALL>[{"name": "calculate_tip", "arguments": {"bill_total": 100, "note": "]}\\"é"}}, '
    '{"name": "calculate_tip", "arguments": {"bill_total": 7}}]</TOOLCALL>'
)
ARGUMENTS = [{"bill_total": 100, "note": ']}"é'}, {"bill_total": 7}]


@pytest.fixture(scope="module", params=["triton", "direct"])
def server(request, engine_folder, triton_runtime) -> Iterator[ServerState]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        patch.setenv("SCRIPTED_STEP_MS", "4")  # slower than a stop travels on a busy machine
        options = ["--engine-module", "support.scripted_host"]
        options += ["--no-triton"] if request.param == "direct" else []
        with serve_engine(engine_folder, *options, drain_s=5) as state:
            yield state


@pytest.fixture
def client(server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:
        yield client


def say(text: str, system: str = "") -> list[Any]:
    text = text.replace("</think>\n\n", "<END>")
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"SAY[[{text}]]SAY"},
    ]


def streamed(client: openai.OpenAI, **request: Any) -> tuple[str, str, list[Any], str]:
    """Return a streamed answer put together: reasoning, content, tool calls, finish reason."""
    reasoning = content = reason = ""
    calls: list[Any] = []
    for chunk in client.chat.completions.create(model="llm", stream=True, **request):
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or []:
                if part.index == len(calls):
                    calls.append({"name": part.function.name, "id": part.id, "arguments": ""})
                calls[part.index]["arguments"] += part.function.arguments
    return reasoning, content, calls, reason


def test_reasoning_is_split_from_content(client) -> None:
    messages = say("Okay, 2 < 3.\n\nSo it is.</think>\n\nThe answer is *2*.\n")
    answer = client.chat.completions.create(model="llm", messages=messages).choices[0]
    assert answer.message.reasoning_content == "Okay, 2 < 3.\n\nSo it is."
    assert answer.message.content == "The answer is *2*.\n"
    assert answer.finish_reason == "stop"
    reasoning, content, calls, reason = streamed(client, messages=messages)
    assert (reasoning, content) == ("Okay, 2 < 3.\n\nSo it is.", "The answer is *2*.\n")
    assert not calls and reason == "stop"


def test_reasoning_stays_in_the_content_when_asked(client) -> None:
    text = "Okay.</think>\n\nTwo."
    extra = {"separate_reasoning": False}
    answer = client.chat.completions.create(model="llm", messages=say(text), extra_body=extra)
    assert answer.choices[0].message.content == text


def test_no_think_gives_content_only(client) -> None:
    messages = say("Just this: 1 <2", system="/no_think")
    answer = client.chat.completions.create(model="llm", messages=messages).choices[0].message
    assert answer.content == "Just this: 1 <2" and answer.reasoning_content is None


@pytest.mark.parametrize("budget", [0, 3, 8])
def test_thinking_budget_ends_the_trace_in_one_request(client, budget) -> None:
    think = "\n".join(f"line {number} of many" for number in range(40))
    answer = client.chat.completions.create(
        model="llm",
        messages=say(f"{think}</think>\n\nDone."),
        extra_body={"max_thinking_tokens": budget},
    )
    message = answer.choices[0].message
    assert message.content == "Done."
    assert think.startswith(message.reasoning_content or "")
    lines = (message.reasoning_content or "").count("\n")
    assert lines <= budget // 3  # each line has more than three tokens
    assert answer.usage.completion_tokens < budget + 40


def test_tool_calls(client) -> None:
    messages = say(f"I need a tool.</think>\n\nLet me see. {CALLS}")
    answer = client.chat.completions.create(model="llm", messages=messages, tools=TOOLS).choices[0]
    calls = answer.message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == ARGUMENTS
    assert [call.function.name for call in calls] == ["calculate_tip"] * 2
    assert answer.message.content == "Let me see." and answer.finish_reason == "tool_calls"
    _, content, calls, reason = streamed(client, messages=messages, tools=TOOLS)
    assert [json.loads(call["arguments"]) for call in calls] == ARGUMENTS
    assert len({call["id"] for call in calls}) == 2
    assert (content, reason) == ("Let me see.", "tool_calls")


def test_tool_results_reach_the_prompt(client) -> None:
    call = {"name": "calculate_tip", "arguments": '{"bill_total": 100}'}
    messages = [
        {"role": "user", "content": "tip?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "SAY[[<END>18 dollars]]SAY"},
    ]
    answer = client.chat.completions.create(model="llm", messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == "18 dollars"


def test_a_single_call_where_no_more_are_wanted(client) -> None:
    """The engine is stopped: it never comes to say the rest."""
    messages = say(f"I need a tool.</think>\n\nLet me see. {CALLS}{' and more' * 40}")
    request = {"messages": messages, "tools": TOOLS, "parallel_tool_calls": False}
    for choice in ("auto", "required"):
        answer = client.chat.completions.create(model="llm", tool_choice=choice, **request)
        [found] = answer.choices[0].message.tool_calls
        assert found.function.name == "calculate_tip"
        assert answer.choices[0].finish_reason == "tool_calls"
        assert answer.usage.prompt_tokens > 0 and 0 < answer.usage.completion_tokens < 100
    _, content, calls, reason = streamed(client, **request)
    assert [json.loads(call["arguments"]) for call in calls] == ARGUMENTS[:1]
    assert (content, reason) == ("Let me see.", "tool_calls")


def test_an_answer_is_handed_back_as_the_sdk_has_it(client) -> None:
    """The commonest loop of an agent: the message's own model_dump, then the tool's result."""
    messages = say(f"I need a tool.</think>\n\nLet me see. {CALLS}")
    answer = client.chat.completions.create(model="llm", messages=messages, tools=TOOLS).choices[0]
    messages.append(answer.message.model_dump())
    for call in answer.message.tool_calls:
        said = {"role": "tool", "tool_call_id": call.id, "content": "SAY[[<END>18 dollars]]SAY"}
        messages.append(said)
    answer = client.chat.completions.create(model="llm", messages=messages, tools=TOOLS).choices[0]
    assert answer.message.content == "18 dollars"
    messages.append(answer.message)  # the SDK serializes it
    messages.append({"role": "user", "content": "SAY[[<END>Bye.]]SAY"})
    answer = client.chat.completions.create(model="llm", messages=messages, tools=TOOLS).choices[0]
    assert answer.message.content == "Bye."


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"name": "calculate_tip", "arguments": {"bill_total": 1}}', '{"bill_total": 1}'),
        ('[{"arguments": {"bill_total": 1}, "name": "calculate_tip"}', '{"bill_total": 1}'),
        ('[{"id": 7, "name": "calculate_tip"}]', "{}"),
        ('[{"name": "calculate_tip", "arguments": null}]', "{}"),
    ],
)
def test_forms_that_nvidias_own_parser_takes(client, body, arguments) -> None:
    messages = say(f"Hm.</think>\n\n<TOOLCALL>{body}</TOOLCALL>\n")
    answer = client.chat.completions.create(model="llm", messages=messages, tools=TOOLS).choices[0]
    [found] = answer.message.tool_calls
    assert (found.function.name, found.function.arguments) == ("calculate_tip", arguments)
    assert answer.message.content == ""
    _, content, calls, _ = streamed(client, messages=messages, tools=TOOLS)
    assert (content, [call["arguments"] for call in calls]) == ("", [arguments])


@pytest.mark.parametrize(
    "text", ["<TOOLCALL>[oops]</TOOLCALL>", "<TOOLCALL>{}", 'a <TOOLCALL>[{"nam', "<TOOLC"]
)
def test_a_malformed_call_is_surfaced_as_content(client, text) -> None:
    messages = say(text, system="/no_think")
    answer = client.chat.completions.create(model="llm", messages=messages, tools=TOOLS).choices[0]
    assert answer.message.content == text
    assert not answer.message.tool_calls and answer.finish_reason == "stop"


def test_without_tools_the_format_is_plain_text(client) -> None:
    answer = client.chat.completions.create(model="llm", messages=say(CALLS, system="/no_think"))
    assert answer.choices[0].message.content == CALLS


def test_json_schema_masks_the_answer_but_not_the_trace(client) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    answer = client.chat.completions.create(
        model="llm",
        messages=say('Free text here.</think>\n\n{"name": "Bob", "age": 41}'),
        response_format=wanted,
    ).choices[0]
    assert answer.message.reasoning_content == "Free text here."
    assert json.loads(answer.message.content) == {"name": "Bob", "age": 41}
    answer = client.chat.completions.create(
        model="llm",
        messages=say("I won't.", system="/no_think"),
        response_format=wanted,
        max_tokens=60,
    ).choices[0]
    assert answer.message.content.startswith('{"name"')


def test_a_format_beside_tools_leaves_both_ways_open(client) -> None:
    colours = {"type": "json_schema", "json_schema": {"name": "c", "schema": {"enum": ["red"]}}}
    request = {"model": "llm", "tools": TOOLS, "response_format": colours}
    calls = CALLS.replace(', "note": "]}\\"é"', "")
    for think in ("", "Let me see.</think>\n\n"):
        system = "" if think else "/no_think"
        messages = say(f'{think}"red"', system=system)
        answer = client.chat.completions.create(messages=messages, **request).choices[0]
        assert (answer.message.content, answer.finish_reason) == ('"red"', "stop")
        assert not answer.message.tool_calls
        messages = say(f"{think}{calls}", system=system)
        answer = client.chat.completions.create(messages=messages, **request).choices[0]
        found = [json.loads(call.function.arguments) for call in answer.message.tool_calls]
        assert found == [{"bill_total": 100}, {"bill_total": 7}]
        assert (answer.message.content, answer.finish_reason) == ("", "tool_calls")


def test_a_required_tool_is_called(client) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "calculate_tip"}}):
        answer = client.chat.completions.create(
            model="llm",
            messages=say("I would rather talk.", system="/no_think"),
            tools=TOOLS,
            tool_choice=choice,
            max_tokens=40,
        ).choices[0]
        assert answer.message.tool_calls[0].function.name == "calculate_tip"
        assert answer.message.tool_calls[0].function.arguments.startswith("{")


def test_a_broken_schema_is_a_400(client) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "zebra"}}}
    with pytest.raises(openai.BadRequestError, match="grammar is refused"):
        client.chat.completions.create(model="llm", messages=say("x"), response_format=wanted)


def test_an_engine_that_fails_is_an_error_and_comes_back(client, server) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="llm", messages=say("DIE"))
    assert caught.value.status_code in (500, 503)
    retrying = client.with_options(max_retries=8)
    answer = retrying.chat.completions.create(model="llm", messages=say("ok", system="/no_think"))
    assert answer.choices[0].message.content == "ok"
