"""The `openai` package: whole, streamed, parsed, and an SDK answer handed back as it is."""

import asyncio
import json
from enum import StrEnum
from typing import Any

import openai
import pydantic
from checks import KEY, MODEL, base_url, check, main, plain_chat

SETTINGS = {"temperature": 0, "max_tokens": 24}
client = openai.OpenAI(base_url=base_url(), api_key=KEY, max_retries=0)


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Point(pydantic.BaseModel):
    x: bool
    color: Color


class Line(pydantic.BaseModel):
    """Two points: the schema has $defs."""

    start: Point
    end: Point


@check
def chat_whole_and_streamed() -> None:
    messages = [{"role": "user", "content": "Hello /no_think"}]
    expected = plain_chat("Hello /no_think", **SETTINGS)
    request = {"model": MODEL, "messages": messages, **SETTINGS}
    assert client.chat.completions.create(**request).choices[0].message.content == expected
    chunks = client.chat.completions.create(**request, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected


@check
def chat_async() -> None:
    async def run() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=base_url(), api_key=KEY) as own:
            messages = [{"role": "user", "content": "Hello /no_think"}]
            request = {"model": MODEL, "messages": messages, **SETTINGS}
            answers = [own.chat.completions.create(**request) for _ in range(4)]
            return [a.choices[0].message.content for a in await asyncio.gather(*answers)]

    assert set(asyncio.run(run())) == {plain_chat("Hello /no_think", **SETTINGS)}


@check
def parse_a_pydantic_model() -> None:
    for seed in range(4):
        answer = client.chat.completions.parse(
            model=MODEL,
            messages=[{"role": "user", "content": "Draw a line. /no_think"}],
            response_format=Line,
            temperature=0.7,
            seed=seed,
            max_tokens=200,
        ).choices[0]
        assert answer.finish_reason == "stop" and isinstance(answer.message.parsed, Line)


@check
def parse_with_reasoning() -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Draw a line."}],
        response_format=Line,
        extra_body={"max_thinking_tokens": 12},
        max_tokens=700,
        seed=1,
    ).choices[0]
    assert answer.finish_reason == "stop" and isinstance(answer.message.parsed, Line)


@check
def pydantic_function_tool_required_and_named() -> None:
    tools = [openai.pydantic_function_tool(Line), openai.pydantic_function_tool(Point)]
    named = {"type": "function", "function": {"name": "Point"}}
    for choice in ("required", named):
        answer = client.chat.completions.parse(
            model=MODEL,
            messages=[{"role": "user", "content": "Draw. /no_think"}],
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=False,
            max_tokens=200,
        ).choices[0]
        assert answer.finish_reason == "tool_calls" and not answer.message.content
        [call] = answer.message.tool_calls
        assert isinstance(call.function.parsed_arguments, Line | Point)
        assert choice == "required" or call.function.name == "Point"


@check
def an_answer_is_handed_back_as_model_dump() -> None:
    tools = [openai.pydantic_function_tool(Point)]
    messages = [{"role": "user", "content": "Draw a point. /no_think"}]
    request = {"model": MODEL, "tools": tools, "max_tokens": 120, "temperature": 0}
    message = client.chat.completions.create(
        messages=messages, tool_choice="required", **request
    ).choices[0]
    messages.append(message.message.model_dump())
    for call in message.message.tool_calls:
        result = {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"ok": True})}
        messages.append(result)
    # the tiny model writes closing tags at will, behind which templates cut an answer
    request["stop"] = ["</think>"]
    answer = client.chat.completions.create(messages=messages, tool_choice="auto", **request)
    messages.append(answer.choices[0].message.model_dump())
    messages.append({"role": "user", "content": "Thank you. /no_think"})
    again = client.chat.completions.create(messages=messages, tool_choice="auto", **request)
    assert again.usage.prompt_tokens > answer.usage.prompt_tokens


@check
def streamed_events_equal_the_whole() -> None:
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Draw. /no_think"}],
        "tools": [openai.pydantic_function_tool(Point)],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 120,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**request).choices[0].message.tool_calls[0].function
    with client.chat.completions.stream(**request) as stream:
        final = stream.get_final_completion().choices[0].message.tool_calls[0].function
    assert (final.name, final.arguments) == (whole.name, whole.arguments)


@check
def json_object_ends_by_itself() -> None:
    for seed in range(4):
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "JSON, please. /no_think"}],
            response_format={"type": "json_object"},
            max_tokens=400,
            seed=seed,
            temperature=0.3,
        ).choices[0]
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.message.content), dict)


@check
def effort_and_the_tokens_of_a_trace() -> None:
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], **SETTINGS}
    off = client.chat.completions.create(**request, reasoning_effort="none")
    on = client.chat.completions.create(**request, reasoning_effort="low")
    assert off.usage.completion_tokens_details.reasoning_tokens == 0
    assert on.usage.completion_tokens_details.reasoning_tokens > 0
    assert on.choices[0].message.reasoning == on.choices[0].message.reasoning_content
    assert on.system_fingerprint == off.system_fingerprint


@check
def a_choice_in_extra_body() -> None:
    for field in (
        {"guided_choice": ["yes", "no"]},
        {"structured_outputs": {"choice": ["yes", "no"]}},
    ):
        answer = client.completions.create(model=MODEL, prompt="Is it?", extra_body=field)
        assert answer.choices[0].text in ("yes", "no")


@check
def a_request_id_goes_out_and_comes_back() -> None:
    headers = {"X-Request-Id": "mine-1"}
    raw = client.completions.with_raw_response.create(
        model=MODEL, prompt="Hi", max_tokens=1, extra_headers=headers
    )
    assert raw.headers["x-request-id"] == "mine-1"


@check
def a_prompt_that_is_too_long_has_its_code() -> None:
    try:
        client.completions.create(model=MODEL, prompt="word " * 20_000)
    except openai.BadRequestError as error:
        assert (error.code, error.param) == ("context_length_exceeded", "prompt")
    else:
        raise AssertionError("it was taken")


@check
def completions_with_logprobs() -> None:
    answer = client.completions.create(
        model=MODEL, prompt="The engine", max_tokens=0, echo=True, logprobs=1, temperature=0
    ).choices[0]
    assert answer.text == "The engine"
    assert answer.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in answer.logprobs.token_logprobs[1:])
    assert "".join(answer.logprobs.tokens).removeprefix("<s>") == "The engine"


@check
def responses_whole_and_streamed() -> None:
    asked: Any = {"model": MODEL, "input": "Hello /no_think", "temperature": 0}
    response = client.responses.create(**asked, max_output_tokens=200)
    text = plain_chat("Hello /no_think", temperature=0, max_tokens=200)
    assert response.output_text == text
    with client.responses.stream(**asked, max_output_tokens=200) as stream:
        pieces = [e.delta for e in stream if e.type == "response.output_text.delta"]
    assert "".join(pieces) == text
    more = client.responses.create(**asked, previous_response_id=response.id, max_output_tokens=30)
    assert client.responses.retrieve(more.id).output_text == more.output_text


@check
def responses_parsed_and_with_a_tool() -> None:
    asked: Any = {"model": MODEL, "input": "A point. /no_think", "temperature": 0}
    asked["max_output_tokens"] = 200  # of what ends by its schema
    parsed = client.responses.parse(**asked, text_format=Point)
    with client.responses.stream(**asked, text_format=Point) as stream:
        assert [event.type for event in stream][-1] == "response.completed"
        streamed = stream.get_final_response()
    assert isinstance(parsed.output_parsed, Point)
    assert streamed.output_parsed == parsed.output_parsed
    tool: Any = {"type": "function", **openai.pydantic_function_tool(Point)["function"]}
    first = client.responses.create(**asked, tools=[tool], tool_choice="required")
    calls = [item for item in first.output if item.type == "function_call"]
    assert calls and all(Point.model_validate_json(call.arguments) for call in calls)
    results: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "sold"}
        for call in calls
    ]
    items = [{"role": "user", "content": asked["input"]}, *first.output, *results]
    sent = client.responses.create(**asked | {"input": items}, tools=[tool])
    kept = client.responses.create(
        **asked | {"input": results}, tools=[tool], previous_response_id=first.id
    )
    assert sent.output_text == kept.output_text


if __name__ == "__main__":
    main()
