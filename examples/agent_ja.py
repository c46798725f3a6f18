"""An agent with tools, in Japanese: it asks for what it needs, until it can answer.

usage: pip install openai; nemotrt serve ENGINE
       python agent_ja.py http://127.0.0.1:9000/v1 [--must-call] [QUESTION]
"""

import argparse
import json
from datetime import date
from typing import Any

from openai import OpenAI

TIMETABLE = {"東京": ["08:00 のぞみ5号", "09:12 ひかり505号"], "大阪": ["10:30 さくら551号"]}
SYSTEM = "あなたは駅の案内係です。時刻表は道具で調べ、日本語で短く答えてください。/no_think"
QUESTION = "明日の朝、東京から出る新幹線を教えてください。"
MAX_ROUNDS = 4
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "timetable",
            "description": "駅から出る列車の一覧を返します。",
            "parameters": {
                "type": "object",
                "properties": {"station": {"type": "string", "enum": [*TIMETABLE]}},
                "required": ["station"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "today",
            "description": "今日の日付を返します。",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    },
]


def call(name: str, arguments: dict[str, Any]) -> Any:
    """Return what a tool says."""
    match name:
        case "timetable":
            return TIMETABLE.get(arguments["station"], [])
        case "today":
            return date.today().isoformat()
    return {"error": f"{name} という道具はありません。"}


def answer(client: OpenAI, model: str, question: str, *, must_call: bool) -> str:
    """Return the agent's answer; `must_call` forces a tool in the first round."""
    messages: list[Any] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
    ]
    for number in range(MAX_ROUNDS):
        choice: Any = "required" if must_call and not number else "auto"
        if number == MAX_ROUNDS - 1:
            choice = "none"
        made = client.chat.completions.create(
            model=model, messages=messages, tools=TOOLS, tool_choice=choice, max_tokens=200
        )
        said = made.choices[0].message
        messages.append(said.model_dump(exclude_none=True))
        if not said.tool_calls:
            return said.content or ""
        for asked in said.tool_calls:
            found = call(asked.function.name, json.loads(asked.function.arguments))
            text = json.dumps(found, ensure_ascii=False)
            print(f"[{asked.function.name} {asked.function.arguments} -> {text}]")
            messages.append({"role": "tool", "tool_call_id": asked.id, "content": text})
    return ""


def main() -> None:
    """Ask the server that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--must-call", action="store_true", help="force a tool at first")
    given = parser.parse_args()
    client = OpenAI(base_url=given.address, api_key="none")
    model = client.models.list().data[0].id
    print(answer(client, model, given.question, must_call=given.must_call))


if __name__ == "__main__":
    main()
