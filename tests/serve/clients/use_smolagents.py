"""smolagents: the model, and both agents as far as a tiny model carries them."""

from checks import KEY, MODEL, base_url, check, main, plain_chat
from smolagents import (
    ChatMessage,
    CodeAgent,
    MessageRole,
    OpenAIServerModel,
    ToolCallingAgent,
    tool,
)

SETTINGS = {"temperature": 0, "max_tokens": 60}
model = OpenAIServerModel(model_id=MODEL, api_base=base_url(), api_key=KEY, **SETTINGS)


@tool
def paint(is_red: bool) -> str:
    """Paint the car.

    Args:
        is_red: whether in red.
    """
    return "done"


@check
def the_model() -> None:
    text = [{"type": "text", "text": "Hello /no_think"}]
    message = ChatMessage(role=MessageRole.USER, content=text)
    assert model.generate([message]).content == plain_chat("Hello /no_think", **SETTINGS)
    deltas = model.generate_stream([message])
    assert "".join(delta.content or "" for delta in deltas) == plain_chat(
        "Hello /no_think", **SETTINGS
    )


@check
def a_tool_calling_agent() -> None:
    agent = ToolCallingAgent(tools=[paint], model=model, max_steps=2, verbosity_level=0)
    agent.run("Paint it. /no_think")
    assert all("Error code: 4" not in str(step) for step in agent.memory.steps)


@check
def a_code_agent() -> None:
    agent = CodeAgent(tools=[paint], model=model, max_steps=2, verbosity_level=0)
    agent.run("Paint it. /no_think")
    assert all("Error code: 4" not in str(step) for step in agent.memory.steps)


if __name__ == "__main__":
    main()
