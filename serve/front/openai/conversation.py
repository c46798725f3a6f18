"""From a chat request to its prompt: messages, tools and variables as chat templates know them."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nemotrt.engines.text.chat.render import Chat, render_chat, render_open
from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.engines.text.chat.thinking import (
    THINKING,
    ContradictionError,
    has_switch,
    render_directed,
)
from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.schema.messages import Message, ToolCall
from nemotrt.serve.front.schema.requests import ChatRequest
from nemotrt.serve.grammar.json_schema import no_number

Json = dict[str, Any]
# What the server gives the template itself, so that a request can't.
NO_PART_OF_A_TURN = {
    *("tool_calls", "function_call", "thinking_blocks", "reasoning_details"),
    *("provider_specific_fields", "cache_control"),
}
OWN_VARIABLES = {"messages", "tools", "add_generation_prompt", "continue_final_message"}


def chat_prompt(request: ChatRequest, files: EngineFiles) -> str:
    """Return the text that the chat template makes of the messages and tools.

    Raises:
        ApiError: the engine has no template, or the template refuses or leaves out something.
    """
    template = files.template
    if template is None:
        raise ApiError(400, "the engine has no chat template; use /v1/completions.")
    turns = [_turn(message, f"messages.{i}") for i, message in enumerate(request.messages)]
    tools = _tools(request, template)
    variables = _variables(request, template)
    _check_end(request, switches_thinking=THINKING in variables)
    thinking = None if THINKING in template.variables else variables.pop(THINKING, None)

    def render(form: Chat) -> str:
        if request.continue_final_message:
            return render_open(template, form, tools, variables)
        is_asked = request.add_generation_prompt is not False
        return render_chat(template, form, tools, variables, add_generation_prompt=is_asked)

    try:
        if thinking is None:
            return render(turns)
        return _with_thinking(thinking, template, turns, render, _thinking_field(request))
    except ConfigError as error:
        raise ApiError(400, error.message, param="messages") from error


def _check_end(request: ChatRequest, *, switches_thinking: bool) -> None:
    """Raise ApiError where the prompt can't end as the request wants it."""
    last, name = request.messages[-1], "continue_final_message"
    if request.continue_final_message:
        if request.add_generation_prompt:
            text = f"{name} begins no answer; leave add_generation_prompt out, or send false."
            raise ApiError(400, text, param=name)
        if last.role != "assistant" or last.calls or not last.content:
            text = f"{name} needs a last message of the assistant's with a text and no tool calls."
            raise ApiError(400, text, param=name)
    elif request.add_generation_prompt is False and switches_thinking:
        name = "add_generation_prompt"
        text = f"{name} false leaves nothing for {_thinking_field(request)} to switch."
        raise ApiError(400, text, param=name)


def _tools(request: ChatRequest, template: ChatTemplate) -> list[Json] | None:
    """Return the tools that the model is shown.

    Raises:
        ApiError: the template shows none, so that the model could only guess at them.
    """
    if not request.tools or request.tool_choice == "none":
        return None
    if "tools" not in template.variables and request.tool_choice in (None, "auto"):
        raise ApiError(400, "the engine's chat template knows no tools.", param="tools")
    return [tool.model_dump(exclude_none=True) for tool in request.tools]


def _variables(request: ChatRequest, template: ChatTemplate) -> Json:
    """Return the template's variables that the request sets.

    Raises:
        ApiError: the template does not read one.
    """
    known = template.variables - OWN_VARIABLES
    if has_switch(template):
        known |= {THINKING}
    variables = dict(request.chat_template_kwargs or {})
    for name in variables:
        if name not in known:
            field = f"chat_template_kwargs.{name}"
            legal = ", ".join(sorted(known)) or "none"
            raise ApiError(
                400, f"{field} is not read by the chat template; known: {legal}.", param=field
            )
    if request.reasoning_effort is not None:
        is_thinking = template.chat.efforts[request.reasoning_effort].is_thinking
        _check_effort(variables.setdefault(THINKING, is_thinking), is_thinking, THINKING in known)
    return variables


def _check_effort(thinking: Any, is_thinking: bool, is_known: bool) -> None:
    """Raise ApiError where a reasoning_effort has no effect, or another field contradicts it."""
    if is_known and thinking == is_thinking:
        return
    text = "reasoning_effort contradicts chat_template_kwargs.enable_thinking; leave one out."
    if not is_known:
        text = "reasoning_effort has no effect: the chat template has no switch for thinking."
    raise ApiError(400, text, param="reasoning_effort")


def _thinking_field(request: ChatRequest) -> str:
    """Return the field that says whether the model thinks."""
    is_variable = THINKING in (request.chat_template_kwargs or {})
    return f"chat_template_kwargs.{THINKING}" if is_variable else "reasoning_effort"


def _with_thinking(
    thinking: Any,
    template: ChatTemplate,
    turns: list[Json],
    render: Callable[[Chat], str],
    field: str,
) -> str:
    """Return the prompt with thinking switched by what the template reads in messages.

    Raises:
        ApiError: the value is not true or false, or a message has the last word.
    """
    if not isinstance(thinking, bool):
        raise ApiError(400, f"{field} must be true or false, got {thinking!r}.", param=field)
    try:
        return render_directed(template, turns, thinking, render)
    except ContradictionError as error:
        asked = f"{field} asks for thinking {'on' if thinking else 'off'}"
        raise ApiError(400, f"{asked}, but {error.message}", param=field) from None


def _turn(message: Message, label: str) -> Json:
    """Return a message as chat templates know it."""
    turn = message.model_dump(
        exclude_none=True,
        exclude=NO_PART_OF_A_TURN
        | ({"reasoning"} if message.reasoning_content is not None else set()),
    )
    if isinstance(message.content, list):
        turn["content"] = [{"type": "text", "text": part.text} for part in message.content]
    if message.role == "developer":
        turn["role"] = "system"
    if message.role == "function":
        turn["role"] = "tool"
    if message.reasoning is None and message.trace is not None:
        turn["reasoning_content"] = message.trace
    if message.calls:
        turn["tool_calls"] = [
            _call(call, f"{label}.{_place(message, i)}") for i, call in enumerate(message.calls)
        ]
    return turn


def _place(message: Message, index: int) -> str:
    """Return where the function of a message's call stands."""
    return f"tool_calls.{index}.function" if message.tool_calls else "function_call"


def _call(call: ToolCall, label: str) -> Json:
    """Return an earlier call; its arguments are parsed, as vLLM does, since templates expect it.

    Raises:
        ApiError: they are not JSON.
    """
    found: Json = call.model_dump(exclude_none=True)
    try:
        arguments = json.loads(call.function.arguments or "{}", parse_constant=no_number)
        json.dumps(arguments, allow_nan=False)
    except (ValueError, RecursionError) as error:
        field = f"{label}.arguments"
        raise ApiError(400, f"{field} must be JSON: {error}.", param=field) from None
    found["function"]["arguments"] = {} if arguments is None else arguments
    return found


class HasText(Protocol):
    """A block or part of a content."""

    text: str


def chat_content(content: str | Sequence[HasText]) -> str | list[dict[str, Any]]:
    """Return another door's content as a chat has it."""
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": block.text} for block in content]
