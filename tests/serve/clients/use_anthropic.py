"""anthropic: messages whole and streamed, thinking, tools in an agent's loop, a schema, counts."""

import asyncio
import json
from typing import Any

import anthropic
import httpx
import pydantic
from checks import MODEL, base_url, check, main, plain

HI: Any = [{"role": "user", "content": "Hello"}]
# Without thinking the model is greedy. The package has no temperature any more.
GREEDY: dict[str, Any] = {"model": MODEL, "max_tokens": 200}
SCHEMA = {
    "type": "object",
    "properties": {"is_red": {"type": "boolean"}},
    "required": ["is_red"],
    "additionalProperties": False,
}
PAINT: Any = {"name": "paint", "description": "Paint the car.", "input_schema": SCHEMA}
where = {"base_url": base_url().removesuffix("/v1"), "api_key": "none", "max_retries": 0}
client = anthropic.Anthropic(**where)


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@check
def a_message_whole() -> None:
    message = client.messages.create(**GREEDY, messages=HI)
    chat = {"messages": HI, "chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 200}
    choice = plain("chat/completions", **chat)["choices"][0]
    assert message.content[0].text == choice["message"]["content"]
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.input_tokens > 0 < message.usage.output_tokens


@check
def a_message_streamed() -> None:
    with client.messages.stream(**GREEDY, messages=HI) as stream:
        pieces = "".join(stream.text_stream)
        message = stream.get_final_message()
    whole = client.messages.create(**GREEDY, messages=HI)
    assert pieces == text_of(message) == text_of(whole)
    assert message.stop_reason == whole.stop_reason
    assert message.usage.output_tokens == whole.usage.output_tokens


@check
def a_message_by_asyncio() -> None:
    async def ask() -> Any:
        async with anthropic.AsyncAnthropic(**where) as aclient:
            return await aclient.messages.create(**GREEDY, messages=HI, system="Be brief.")

    assert asyncio.run(ask()).content[0].type == "text"


@check
def thinking_within_a_budget() -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    asked = GREEDY | {"max_tokens": 1500, "extra_body": {"temperature": 0}}
    message = client.messages.create(**asked, messages=HI, thinking=thinking)
    assert [block.type for block in message.content] == ["thinking", "text"]
    with client.messages.stream(**asked, messages=HI, thinking=thinking) as stream:
        streamed = stream.get_final_message()
    assert [b.type for b in streamed.content] == [b.type for b in message.content]
    assert streamed.content[0].thinking == message.content[0].thinking
    turns = [*HI, {"role": "assistant", "content": message.content}, *HI]
    assert client.messages.create(**asked, messages=turns, thinking=thinking).content


@check
def an_agents_loop() -> None:
    """A forced call, its result handed back, and an answer."""
    asked = GREEDY | {"tools": [PAINT]}
    turns = [{"role": "user", "content": "Paint it."}]
    message = client.messages.create(**asked, messages=turns, tool_choice={"type": "any"})
    assert message.stop_reason == "tool_use"
    calls = [block for block in message.content if block.type == "tool_use"]
    assert calls and all(isinstance(call.input["is_red"], bool) for call in calls)
    results = [{"type": "tool_result", "tool_use_id": c.id, "content": "done"} for c in calls]
    turns += [{"role": "assistant", "content": message.content}]
    turns += [{"role": "user", "content": results}]
    assert client.messages.create(**asked, messages=turns, tool_choice={"type": "none"}).content


@check
def a_forced_call_streamed() -> None:
    choice: Any = {"type": "tool", "name": "paint", "disable_parallel_tool_use": True}
    with client.messages.stream(**GREEDY, messages=HI, tools=[PAINT], tool_choice=choice) as stream:
        said = "".join(e.partial_json for e in stream if e.type == "input_json")
        message = stream.get_final_message()
    [call] = [block for block in message.content if block.type == "tool_use"]
    assert json.loads(said) == call.input and isinstance(call.input["is_red"], bool)


@check
def the_tool_runner() -> None:
    """The package's own loop; the tiny model is held to one round."""
    painted = []

    @anthropic.beta_tool
    def paint(is_red: bool) -> str:
        """Paint the car.

        Args:
            is_red: whether in red.
        """
        painted.append(is_red)
        return "done"

    runner = client.beta.messages.tool_runner(
        **GREEDY, messages=HI, tools=[paint], tool_choice={"type": "any"}, max_iterations=2
    )
    assert len(list(runner)) == 2 and painted


@check
def a_parsed_answer() -> None:
    class Car(pydantic.BaseModel):
        is_red: bool

    message = client.messages.parse(**GREEDY, messages=HI, output_format=Car)
    assert isinstance(message.parsed_output, Car)


@check
def a_count_of_tokens() -> None:
    asked: Any = {"model": MODEL, "messages": HI, "tools": [PAINT]}
    count = client.messages.count_tokens(**asked).input_tokens
    usage = client.messages.create(**asked, max_tokens=1).usage
    assert count == usage.input_tokens + (usage.cache_read_input_tokens or 0)


@check
def a_stop_sequence() -> None:
    whole = text_of(client.messages.create(**GREEDY, messages=HI))
    stop = whole[len(whole) // 2 :][:3]
    for stream in (False, True):
        asked: Any = GREEDY | {"messages": HI, "stop_sequences": ["nothing like it", stop]}
        if stream:
            with client.messages.stream(**asked) as events:
                message = events.get_final_message()
        else:
            message = client.messages.create(**asked)
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
        assert text_of(message) == whole.partition(stop)[0]


@check
def every_event_and_message_is_of_the_packages_types() -> None:
    """Strictly: the client itself takes anything."""
    url, headers = f"{where['base_url']}/v1/messages", {"x-api-key": "none"}
    event: Any = pydantic.TypeAdapter(anthropic.types.RawMessageStreamEvent)
    forced = {"tools": [PAINT], "tool_choice": {"type": "any"}}
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1500}
    for more in ({}, forced, thinking, {"stop_sequences": ["e"]}, {"system": "Be brief."}):
        body = GREEDY | {"messages": HI} | more
        answer = httpx.post(url, json=body, headers=headers, timeout=300)
        anthropic.types.Message.model_validate(answer.json())
        assert answer.headers["request-id"]
        streamed = httpx.post(url, json=body | {"stream": True}, headers=headers, timeout=300)
        lines = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: ")]
        assert len(lines) > 3
        for line in lines:
            event.validate_json(line)


@check
def errors_are_the_clients() -> None:
    for wrong, kind in (
        ({"model": "claude"}, anthropic.NotFoundError),
        ({"max_tokens": 0}, anthropic.BadRequestError),
    ):
        try:
            client.messages.create(**GREEDY | {"messages": HI} | wrong)
        except kind as error:
            assert error.body["error"]["type"].endswith("_error") and error.request_id
        else:
            raise AssertionError(wrong)


if __name__ == "__main__":
    main()
