"""Conversations as clients send them, for templates that are held to transformers."""

from typing import Any

Chat = list[dict[str, Any]]

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "calculate_tip",
            "description": "Berechnet <Trinkgeld> & mehr: 日本",
            "parameters": {
                "type": "object",
                "properties": {
                    "bill_total": {"type": "integer", "description": "whole €"},
                    "names": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["bill_total"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "Tells the time.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]
BARE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object"}},
}
ARGUMENTS = {"bill_total": 100, "names": ["Zoë", "<b>"], "rate": 0.5, "deep": {"x": None}}
ARGUMENTS_TEXT = '{"bill_total": 100, "names": ["Zoë", "<b>"], "rate": 0.5}'


def call(arguments: Any, call_id: str = "call12345") -> dict[str, Any]:
    function = {"name": "calculate_tip", "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _agent(content: str | None, arguments: Any) -> Chat:
    asks: dict[str, Any] = {"role": "assistant", "tool_calls": [call(arguments)]}
    if content is not None:
        asks["content"] = content
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "A tip for 100?"},
        asks,
        {"role": "tool", "content": '{"tip": 18}', "tool_call_id": "call12345", "name": "x"},
        {"role": "assistant", "content": "18."},
        {"role": "user", "content": " Thanks! \n"},
    ]


CHATS: dict[str, Chat] = {
    "plain": [{"role": "user", "content": "Hi"}],
    "system": [{"role": "system", "content": "Be <b>."}, {"role": "user", "content": "やあ 'x'"}],
    "turns": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
        {"role": "user", "content": "c"},
    ],
    "reasoning": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "reasoning": "long thoughts", "content": "b"},
        {"role": "user", "content": "c"},
    ],
    "call": _agent("", ARGUMENTS),
    "call with text": _agent("Let me see.", ARGUMENTS),
    "call as text": _agent("", ARGUMENTS_TEXT),
    "call without content": _agent(None, ARGUMENTS),
    "null content": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "name": None},
        {"role": "user", "content": "b"},
    ],
    "two calls": [
        {"role": "user", "content": "tips?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call(ARGUMENTS, "call00001"), call({}, "call00002")],
        },
        {"role": "tool", "content": "18", "tool_call_id": "call00001"},
        {"role": "tool", "content": "19", "tool_call_id": "call00002"},
    ],
    "parts": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("one", "two")]},
    ],
    "late system": [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "b"},
    ],
    "assistant last": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}],
}
