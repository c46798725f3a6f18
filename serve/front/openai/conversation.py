"""From a chat request to its prompt: messages, tools and variables as chat templates know them."""

import json
from typing import Any, NoReturn

from nemotrt.engines.text.chat.render import render_chat
from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.engines.text.chat.thinking import (
    THINKING,
    ContradictionError,
    has_switch,
    render_thinking,
)
from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.schema.messages import Message, ToolCall
from nemotrt.serve.front.schema.requests import ChatRequest

Json = dict[str, Any]
# What the server gives the template itself, so that a request can't.
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
    thinking = None if THINKING in template.variables else variables.pop(THINKING, None)
    try:
        if thinking is None:
            return render_chat(template, turns, tools, variables)
        return _with_thinking(thinking, template, turns, tools, variables)
    except ConfigError as error:
        raise ApiError(400, error.message, param="messages") from error


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
    return variables


def _with_thinking(
    thinking: Any,
    template: ChatTemplate,
    turns: list[Json],
    tools: list[Json] | None,
    variables: Json,
) -> str:
    """Return the prompt with thinking switched by what the template reads in messages.

    Raises:
        ApiError: the value is not true or false, or a message has the last word.
    """
    field = f"chat_template_kwargs.{THINKING}"
    if not isinstance(thinking, bool):
        raise ApiError(400, f"{field} must be true or false, got {thinking!r}.", param=field)
    try:
        return render_thinking(template, turns, thinking, tools, variables)
    except ContradictionError as error:
        raise ApiError(400, f"chat_template_kwargs.{error.message}", param=field) from None


def _turn(message: Message, label: str) -> Json:
    """Return a message as chat templates know it."""
    turn = message.model_dump(
        exclude_none=True,
        exclude={"tool_calls", "provider_specific_fields"}
        | ({"reasoning"} if message.reasoning_content is not None else set()),
    )
    if isinstance(message.content, list):
        turn["content"] = [{"type": "text", "text": part.text} for part in message.content]
    if message.role == "developer":
        turn["role"] = "system"
    if message.tool_calls:
        turn["tool_calls"] = [
            _call(call, f"{label}.tool_calls.{i}") for i, call in enumerate(message.tool_calls)
        ]
    return turn


def _call(call: ToolCall, label: str) -> Json:
    """Return an earlier call; its arguments are parsed, as vLLM does, since templates expect it.

    Raises:
        ApiError: they are not JSON.
    """
    found: Json = call.model_dump(exclude_none=True)
    try:
        arguments = json.loads(call.function.arguments or "{}", parse_constant=_refuse)
        json.dumps(arguments, allow_nan=False)
    except (ValueError, RecursionError) as error:
        field = f"{label}.function.arguments"
        raise ApiError(400, f"{field} must be JSON: {error}.", param=field) from None
    found["function"]["arguments"] = {} if arguments is None else arguments
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
