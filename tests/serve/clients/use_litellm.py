"""litellm's two ways to an OpenAI-compatible server."""

import asyncio
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network otherwise

import litellm
import pydantic
from checks import KEY, MODEL, base_url, check, main, plain_chat

litellm.telemetry = False
MESSAGES = [{"role": "user", "content": "Hello /no_think"}]
SETTINGS = {"api_base": base_url(), "api_key": KEY, "temperature": 0, "max_tokens": 60}
PROVIDERS = ("openai", "hosted_vllm")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "paint",
            "parameters": {
                "type": "object",
                "properties": {"is_red": {"type": "boolean"}},
                "required": ["is_red"],
            },
        },
    }
]


class Car(pydantic.BaseModel):
    is_new: bool


@check
def whole_streamed_and_async() -> None:
    expected = plain_chat("Hello /no_think", temperature=0, max_tokens=60)
    for provider in PROVIDERS:
        request = {"model": f"{provider}/{MODEL}", "messages": MESSAGES, **SETTINGS}
        assert litellm.completion(**request).choices[0].message.content == expected
        chunks = litellm.completion(**request, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected
        answer = asyncio.run(litellm.acompletion(**request))
        assert answer.choices[0].message.content == expected


@check
def a_forced_tool_and_its_result() -> None:
    for provider in PROVIDERS:
        request = {"model": f"{provider}/{MODEL}", "tools": TOOLS, **SETTINGS}
        message = (
            litellm.completion(messages=MESSAGES, tool_choice="required", **request)
            .choices[0]
            .message
        )
        call = message.tool_calls[0]
        assert isinstance(json.loads(call.function.arguments)["is_red"], bool)
        result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
        history = [*MESSAGES, message.model_dump(), result]
        assert litellm.completion(messages=history, **request).usage.prompt_tokens > 0


@check
def a_response_format() -> None:
    for provider in PROVIDERS:
        answer = litellm.completion(
            model=f"{provider}/{MODEL}", messages=MESSAGES, response_format=Car, **SETTINGS
        )
        assert isinstance(Car.model_validate_json(answer.choices[0].message.content), Car)


@check
def text_completion() -> None:
    answer = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", prompt="The engine", **SETTINGS
    )
    assert answer.choices[0].text


if __name__ == "__main__":
    main()
