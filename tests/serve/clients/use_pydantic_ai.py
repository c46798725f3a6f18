"""pydantic-ai: text, tools and its three kinds of structured output."""

import asyncio
import contextlib
from typing import Literal

import pydantic
from checks import KEY, MODEL, base_url, check, main, plain_chat
from pydantic_ai import (
    Agent,
    NativeOutput,
    PromptedOutput,
    ToolOutput,
    UsageLimitExceeded,
    UsageLimits,
    capture_run_messages,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=base_url(), api_key=KEY))
settings = ModelSettings(temperature=0, max_tokens=200)


class Part(pydantic.BaseModel):
    kind: Literal["wheel", "door"]


class Car(pydantic.BaseModel):
    """A car: the schema has $defs."""

    part: Part
    is_new: bool


class Loose(pydantic.BaseModel):
    """What any JSON object fits."""

    note: object = None


@check
def text() -> None:
    answer = Agent(model, model_settings=settings).run_sync("Hello /no_think")
    assert answer.output == plain_chat("Hello /no_think", temperature=0, max_tokens=200)


@check
def text_streamed() -> None:
    async def run() -> str:
        async with Agent(model, model_settings=settings).run_stream("Hello /no_think") as answer:
            return str(await answer.get_output())

    assert asyncio.run(run()) == plain_chat("Hello /no_think", temperature=0, max_tokens=200)


@check
def tool_output() -> None:
    agent = Agent(model, output_type=ToolOutput(Car), model_settings=settings)
    assert isinstance(agent.run_sync("A car. /no_think").output, Car)


@check
def native_output() -> None:
    agent = Agent(model, output_type=NativeOutput(Car), model_settings=settings)
    assert isinstance(agent.run_sync("A car. /no_think").output, Car)


@check
def prompted_output() -> None:
    agent = Agent(model, output_type=PromptedOutput(Loose), model_settings=settings)
    assert isinstance(agent.run_sync("A note. /no_think").output, Loose)


@check
def a_tool_and_its_result_go_back() -> None:
    agent = Agent(model, output_type=ToolOutput(Car), model_settings=settings)
    seen = []

    @agent.tool_plain
    def paint(is_red: bool) -> str:
        """Paint the car."""
        seen.append(is_red)
        return "done"

    # the tiny model paints on and on
    with capture_run_messages() as messages, contextlib.suppress(UsageLimitExceeded):
        agent.run_sync("Paint a car. /no_think", usage_limits=UsageLimits(request_limit=3))
    assert seen and all(isinstance(is_red, bool) for is_red in seen)
    history = messages[:3]  # the question, the call, its result
    car = Agent(model, output_type=ToolOutput(Car), model_settings=settings)
    assert isinstance(car.run_sync("Another. /no_think", message_history=history).output, Car)


if __name__ == "__main__":
    main()
