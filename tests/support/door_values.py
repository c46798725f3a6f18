"""Every door that takes a body: a body of it, and a value of each of its other fields.

Each value asks for something else than leaving the field out does.
"""

from typing import Any, NamedTuple

from pydantic import BaseModel

from nemotrt.serve.front.schema.anthropic import CountRequest, MessagesRequest
from nemotrt.serve.front.schema.requests import ChatRequest, CompletionRequest
from nemotrt.serve.front.schema.responses import ResponsesRequest
from nemotrt.serve.front.schema.shared import SHARED
from nemotrt.serve.front.schema.tokens import DetokenizeRequest, TokenizeChat, TokenizeText
from support.saying_upstream import (
    CHAT_BODY,
    CHAT_VALUES,
    COMPLETION_BODY,
    COMPLETION_VALUES,
    TOOL,
    beside,
)

Json = dict[str, Any]
SCHEMA: Json = {
    "type": "object",
    "properties": {"red": {"type": "boolean"}},
    "required": ["red"],
    "additionalProperties": False,
}
HI: list[Json] = CHAT_BODY["messages"]
SHARED_VALUES = {name: CHAT_VALUES[name] for name in SHARED}
RESPONSE_VALUES: Json = {
    **SHARED_VALUES,
    "instructions": "Be brief.",
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 2,
    "previous_response_id": None,  # another request's answer: a test of its own
    "store": False,
    "stream": True,
    "stream_options": {"include_obfuscation": True},
    "max_output_tokens": 6,
    "temperature": 0.3,
    "tools": [{"type": "function", **TOOL["function"]}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "text": {"format": {"type": "json_schema", "name": "car", "schema": SCHEMA}},
    "reasoning": {"effort": "none"},
    **{name: CHAT_VALUES[name] for name in ("user", "metadata")},
    **{name: CHAT_VALUES[name] for name in ("safety_identifier", "prompt_cache_key")},
}
COUNT_VALUES: Json = {
    **SHARED_VALUES,
    "system": "Be brief.",
    "tools": [{"name": "now", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 4},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["e", "a"],
    "stream": True,
    "temperature": 0.3,
    "metadata": {"user_id": "ada"},
    "cache_control": {"type": "ephemeral"},
    "thread": {"type": "create"},
}


class Door(NamedTuple):
    """A door: its path, the schema of its body, a least body, and values of the other fields."""

    path: str
    schema: type[BaseModel]
    least: Json
    values: Json

    def body(self, name: str) -> Json:
        """Return a body with a value of the field `name`."""
        return {**self.least, **beside(name, self.values), name: self.values[name]}


MESSAGE: Json = {"model": "llm", "messages": HI, "max_tokens": 12}
DOORS = (
    Door("/v1/chat/completions", ChatRequest, CHAT_BODY, CHAT_VALUES),
    Door("/v1/completions", CompletionRequest, COMPLETION_BODY, COMPLETION_VALUES),
    Door("/v1/responses", ResponsesRequest, {"model": "llm", "input": "Hi"}, RESPONSE_VALUES),
    Door("/v1/messages", MessagesRequest, MESSAGE, COUNT_VALUES),
    Door("/v1/messages/count_tokens", CountRequest, CHAT_BODY, COUNT_VALUES),
    Door(
        "/tokenize",
        TokenizeText,
        {"prompt": "Hi"},
        {"model": "llm", "add_special_tokens": False, "return_token_strs": True},
    ),
    Door(
        "/tokenize",
        TokenizeChat,
        {"messages": HI},
        {
            "model": "llm",
            "tools": [TOOL],
            "chat_template_kwargs": {"enable_thinking": False},
            "return_token_strs": True,
        },
    ),
    Door("/detokenize", DetokenizeRequest, {"tokens": [40, 41]}, {"model": "llm"}),
)
