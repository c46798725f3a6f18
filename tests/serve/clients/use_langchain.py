"""langchain-openai: messages, streams, tools and `with_structured_output` in its three methods."""

from enum import StrEnum

import openai
import pydantic
from checks import KEY, MODEL, base_url, check, main, plain_chat
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

llm = ChatOpenAI(
    model=MODEL, base_url=base_url(), api_key=KEY, temperature=0, max_tokens=200, max_retries=0
)


class Mood(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Inner(pydantic.BaseModel):
    mood: Mood


class Answer(pydantic.BaseModel):
    """How it is."""

    inner: Inner
    is_sure: bool


class Loose(pydantic.BaseModel):
    """What any JSON object fits."""

    note: object = None


@tool
def weather(is_celsius: bool) -> str:
    """Tell the weather."""
    return "12"


@check
def invoke_and_stream() -> None:
    expected = plain_chat("Hello /no_think", temperature=0, max_tokens=200)
    assert llm.invoke("Hello /no_think").content == expected
    assert "".join(chunk.content for chunk in llm.stream("Hello /no_think")) == expected


@check
def batch_and_roles() -> None:
    messages = [
        SystemMessage("/no_think"),
        HumanMessage("Hello"),
        AIMessage("Hi."),
        HumanMessage("?"),
    ]
    one, two = llm.batch([messages, messages])
    assert one.content == two.content and one.usage_metadata["input_tokens"] > 0


@check
def completion_model() -> None:
    old = OpenAI(
        model=MODEL, base_url=base_url(), api_key=KEY, temperature=0, max_tokens=8, max_retries=0
    )
    assert old.invoke("The engine")


@check
def bind_tools_forced_and_result_handed_back() -> None:
    bound = llm.bind_tools([weather], tool_choice="required")
    asked = HumanMessage("Weather? /no_think")
    answer = bound.invoke([asked])
    assert answer.tool_calls and answer.tool_calls[0]["name"] == "weather"
    assert isinstance(answer.tool_calls[0]["args"]["is_celsius"], bool)
    results = [ToolMessage("12", tool_call_id=call["id"]) for call in answer.tool_calls]
    assert llm.bind_tools([weather]).invoke([asked, answer, *results]).response_metadata


@check
def streamed_tool_calls() -> None:
    bound = llm.bind_tools([weather], tool_choice="weather", parallel_tool_calls=False)
    whole = bound.invoke("Weather? /no_think").tool_calls[0]["args"]
    chunks = list(bound.stream("Weather? /no_think"))
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    assert total.tool_calls[0]["args"] == whole


@check
def structured_by_function_calling() -> None:
    model = llm.with_structured_output(Answer, method="function_calling")
    assert isinstance(model.invoke("How is it? /no_think"), Answer)


@check
def structured_by_json_schema() -> None:
    for is_strict in (True, False):
        model = llm.with_structured_output(Answer, method="json_schema", strict=is_strict)
        assert isinstance(model.invoke("How is it? /no_think"), Answer)


@check
def structured_by_json_mode() -> None:
    parsed = []
    for seed in range(8):  # some of the tiny model's strings have no end
        own = llm.model_copy(update={"seed": seed, "temperature": 1.0})
        model = own.with_structured_output(Loose, method="json_mode")
        try:
            parsed.append(model.invoke("Some JSON: /no_think"))
        except openai.LengthFinishReasonError:
            continue
    assert parsed and all(isinstance(answer, Loose) for answer in parsed)


@check
def logprobs() -> None:
    answer = llm.bind(logprobs=True, top_logprobs=2).invoke("Hello /no_think")
    assert answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]


if __name__ == "__main__":
    main()
