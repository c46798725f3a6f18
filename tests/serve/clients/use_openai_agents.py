"""openai-agents over responses, its default, and chat completions: text, tools, streams."""

import asyncio
from collections.abc import Callable
from typing import Literal

import openai
import pydantic
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from checks import KEY, MODEL, base_url, check, main, plain_chat

set_tracing_disabled(True)
PAINT = "Paint /no_think"  # the tiny model's answer ends by itself; a cut one is an error
settings = ModelSettings(temperature=0, max_tokens=200)


class Part(pydantic.BaseModel):
    kind: Literal["wheel", "door"]


class Car(pydantic.BaseModel):
    part: Part
    is_new: bool


@function_tool
def paint(is_red: bool) -> str:
    """Paint the car."""
    return "done"


def model() -> OpenAIChatCompletionsModel:
    """Return the model with a client of its own, which belongs to one event loop."""
    client = openai.AsyncOpenAI(base_url=base_url(), api_key=KEY, max_retries=0)
    return OpenAIChatCompletionsModel(model=MODEL, openai_client=client)


def default() -> OpenAIResponsesModel:
    """Return the model as the package makes it of a name: over /v1/responses."""
    client = openai.AsyncOpenAI(base_url=base_url(), api_key=KEY, max_retries=0)
    return OpenAIResponsesModel(model=MODEL, openai_client=client)


def run(agent: Agent, text: str) -> object:
    return asyncio.run(Runner.run(agent, text, max_turns=4)).final_output


@check
def text() -> None:
    for made in (model(), default()):
        agent = Agent(name="a", model=made, model_settings=settings)
        assert run(agent, PAINT) == plain_chat(PAINT, temperature=0, max_tokens=200)


@check
def text_streamed() -> None:
    for make in (model, default):

        async def stream(make: Callable[[], Model] = make) -> object:
            result = Runner.run_streamed(
                Agent(name="a", model=make(), model_settings=settings), PAINT
            )
            async for _ in result.stream_events():
                pass
            return result.final_output

        assert asyncio.run(stream()) == plain_chat(PAINT, temperature=0, max_tokens=200)


@check
def output_type() -> None:
    for made in (model(), default()):
        agent = Agent(name="a", model=made, model_settings=settings, output_type=Car)
        assert isinstance(run(agent, "A car. /no_think"), Car)


@check
def a_forced_tool_and_its_result() -> None:
    forced = ModelSettings(
        temperature=0, max_tokens=200, tool_choice="required", parallel_tool_calls=False
    )
    for made in (model(), default()):
        agent = Agent(
            name="a",
            model=made,
            model_settings=forced,
            tools=[paint],
            output_type=Car,
            tool_use_behavior="stop_on_first_tool",  # the tiny model would paint on and on
        )
        result = asyncio.run(Runner.run(agent, "Paint. /no_think", max_turns=4))
        assert any(item.type == "tool_call_output_item" for item in result.new_items)
        assert result.final_output == "done"


@check
def a_name_alone_is_responses() -> None:
    """As in the package's first example, with a conversation that the server keeps."""
    set_default_openai_client(openai.AsyncOpenAI(base_url=base_url(), api_key=KEY, max_retries=0))

    async def talk() -> list[object]:
        agent = Agent(name="a", model=MODEL, model_settings=settings, output_type=Car)
        first = await Runner.run(agent, PAINT)
        kept = await Runner.run(
            agent, "And? /no_think", previous_response_id=first.last_response_id
        )
        whole = [*first.to_input_list(), {"role": "user", "content": "And? /no_think"}]
        sent = await Runner.run(agent, whole)
        return [kept.final_output, sent.final_output]

    kept, sent = asyncio.run(talk())
    assert isinstance(kept, Car) and kept == sent


if __name__ == "__main__":
    main()
