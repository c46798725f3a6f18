"""From a Messages body to the chat that it asks for."""

import json
from collections.abc import Iterator
from typing import Any

from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.engines.text.chat.thinking import THINKING, has_switch
from nemotrt.serve.front.openai.conversation import chat_content
from nemotrt.serve.front.schema.anthropic import (
    AnthropicTool,
    CountRequest,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from nemotrt.serve.front.schema.shared import shared_fields

Json = dict[str, Any]
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# What an error of the chat is about, as the client knows it.
NAMES = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "reasoning_effort": "output_config.effort",
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
}


def chat_body(body: CountRequest, template: ChatTemplate | None) -> Json:
    """Return the chat's body."""
    choice, wanted = body.tool_choice, body.output_config
    system = (
        [] if body.system is None else [{"role": "system", "content": chat_content(body.system)}]
    )
    chat = {
        "model": body.model,
        "stream": body.stream,
        "messages": system + chat_messages(body),
        "max_completion_tokens": body.max_tokens if isinstance(body, MessagesRequest) else None,
        "temperature": body.temperature,
        "stop": body.stop_sequences,
        "include_stop_str_in_output": bool(body.stop_sequences),  # which says the one that came
        "user": body.metadata.user_id if body.metadata else None,
        "tools": [_tool(tool) for tool in body.tools or []] or None,
        "tool_choice": None if choice is None else _choice(choice),
        "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
        "response_format": _format(body),
        "reasoning_effort": wanted.effort if wanted else None,
        "separate_reasoning": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": body.stream},
    }
    return chat | _thinking(body, template)


def chat_messages(body: CountRequest) -> list[Json]:
    """Return the chat's messages; the results in a turn of the user are messages of their own."""
    messages: list[Json] = []
    for turn in body.messages:
        if turn.role == "assistant":
            messages.append(_assistant(turn.content))
        elif isinstance(turn.content, str):
            messages.append({"role": "user", "content": turn.content})
        else:
            messages += _user(turn.content)
    return messages


def _user(blocks: list[Any]) -> Iterator[Json]:
    """Yield the messages of a turn: texts beside each other are one."""
    texts: list[Json] = []
    for block in blocks:
        if isinstance(block, TextBlock):
            texts.append({"type": "text", "text": block.text})
            continue
        if texts:
            yield {"role": "user", "content": texts}
        texts = []
        yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _result(block)}
    if texts:
        yield {"role": "user", "content": texts}


def _result(block: ToolResult) -> str | list[Json]:
    """Return what a tool returned; templates know no errors, so that the text has to say it."""
    content = chat_content(block.content or "")
    if not block.is_error:
        return content
    if isinstance(content, str):
        return f"Error: {content}"
    return [{"type": "text", "text": "Error:"}, *content]


def _assistant(content: str | list[Any]) -> Json:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    turn: Json = {"role": "assistant"}
    texts = [block.text for block in content if isinstance(block, TextBlock)]
    traces = [block.thinking for block in content if isinstance(block, ThinkingBlock)]
    calls = [_call(block) for block in content if isinstance(block, ToolUse)]
    if texts:
        turn["content"] = "".join(texts)
    if traces:
        turn["reasoning_content"] = "".join(traces)
    if calls:
        turn["tool_calls"] = calls
    return turn


def _call(block: ToolUse) -> Json:
    function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
    return {"id": block.id, "type": "function", "function": function}


def _tool(tool: AnthropicTool) -> Json:
    function = tool.model_dump(include={"name", "description", "strict"}, exclude_none=True)
    function["parameters"] = tool.input_schema
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> Any:
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return CHOICES[choice.type]


def _format(body: CountRequest) -> Json | None:
    """Return the chat's response format."""
    if body.output_config is None or body.output_config.format is None:
        return None
    schema = body.output_config.format.json_schema
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def _thinking(body: CountRequest, template: ChatTemplate | None) -> Json:
    """Return what the chat says of thinking, with what all doors share.

    Anthropic's models do not think unless asked to. So neither does this one, where its template
    can say so and neither an effort nor a message says otherwise.
    """
    chat = shared_fields(body)
    told = body.thinking
    if told is not None and told.budget_tokens is not None:
        chat["max_thinking_tokens"] = told.budget_tokens
    has_effort = body.output_config is not None and body.output_config.effort is not None
    if template is None or (has_effort if told is None else told.type == "adaptive"):
        return chat
    is_on = told is not None and told.type == "enabled"
    if is_on or (has_switch(template) and not _is_asked(body, template)):
        chat["chat_template_kwargs"] = {THINKING: is_on, **chat.get("chat_template_kwargs", {})}
    return chat


def _is_asked(body: CountRequest, template: ChatTemplate) -> bool:
    """Whether the body leaves thinking to a directive in its messages."""
    if body.thinking is not None:
        return False
    texts = [body.system or "", *(turn.content for turn in body.messages)]
    return any(template.chat.directives[True] in text for text in map(str, texts))
