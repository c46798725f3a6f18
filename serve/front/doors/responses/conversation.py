"""From a Responses body to the chat that it asks for."""

from collections.abc import Iterable
from typing import Any

from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.conversation import chat_content
from nemotrt.serve.front.schema.responses import (
    LOGPROBS,
    CallItem,
    CallOutputItem,
    InputPart,
    MessageItem,
    ReasoningItem,
    ResponsesRequest,
    TextForm,
)
from nemotrt.serve.front.schema.shared import shared_fields
from nemotrt.serve.front.schema.tool_choice import AllowedFunctions, NamedFunction

Json = dict[str, Any]
# What the chat takes by the same name, beside what all doors share.
SAME = (
    "model",
    "stream",
    "temperature",
    "parallel_tool_calls",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
)
# What an error of the chat is about, as the client knows it.
NAMES = {
    "logprobs": "include",
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
}


def chat_body(body: ResponsesRequest, items: Iterable[Any]) -> Json:
    """Return the chat's body: the instructions, and the `items` of the whole conversation.

    Raises:
        ApiError: `top_logprobs` is of log-probabilities that are not asked for.
    """
    if body.top_logprobs and not body.is_scored:
        text = f'top_logprobs needs include: ["{LOGPROBS}"].'
        raise ApiError(400, text, param="top_logprobs")
    chat: Json = {name: getattr(body, name) for name in SAME}
    system = [{"role": "system", "content": body.instructions}] if body.instructions else []
    chat |= {
        "messages": system + chat_messages(items),
        "max_completion_tokens": body.max_output_tokens,
        "tools": [_tool(tool) for tool in body.tools or []] or None,
        "tool_choice": _choice(body.tool_choice),
        "response_format": _format(body.text.format if body.text else None),
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        "separate_reasoning": True,
        "logprobs": body.is_scored,
        "top_logprobs": body.top_logprobs,
        "return_token_ids": body.is_scored,  # they tell which of the tokens are the text's
        "stream_options": {"include_usage": True},
    }
    return chat | shared_fields(body)


def chat_messages(items: Iterable[Any]) -> list[Json]:
    """Return the chat's messages; what an assistant said on end is one turn."""
    messages: list[Json] = []
    for item in items:
        if isinstance(item, CallOutputItem):
            content = chat_content(item.output)
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
        elif isinstance(item, MessageItem) and item.role != "assistant":
            messages.append({"role": item.role, "content": chat_content(item.content)})
        else:
            _add_to_turn(messages, item)
    return messages


def _add_to_turn(messages: list[Json], item: MessageItem | ReasoningItem | CallItem) -> None:
    """Add what the assistant said to its turn, or begin one.

    A trace begins a turn. So does a text, unless it stands beside calls: a model may speak after it
    has called.
    """
    turn = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    if isinstance(item, ReasoningItem):
        trace = "".join(part.text for part in item.content or item.summary)
        messages.append({"role": "assistant", "reasoning_content": trace})
        return
    is_spoken = turn is not None and "content" in turn and "tool_calls" not in turn
    if turn is None or (isinstance(item, MessageItem) and is_spoken):
        turn = {"role": "assistant"}
        messages.append(turn)
    if isinstance(item, CallItem):
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        turn.setdefault("tool_calls", []).append(call)
    else:
        turn["content"] = turn.get("content", "") + _text(item.content)


def _text(content: str | list[InputPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _tool(tool: Any) -> Json:
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _choice(choice: str | NamedFunction | AllowedFunctions | None) -> Any:
    """Return the choice as a chat has it."""
    if isinstance(choice, NamedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    if isinstance(choice, AllowedFunctions):
        allowed = {"mode": choice.mode, "tools": [_choice(tool) for tool in choice.tools]}
        return {"type": choice.type, "allowed_tools": allowed}
    return choice


def _format(form: TextForm | None) -> Json | None:
    """Return the chat's response format; there the schema is an object apart."""
    if form is None or form.type == "text":
        return None
    wanted: Json = {"type": form.type}
    told = form.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
    return wanted | ({"json_schema": told} if told else {})
