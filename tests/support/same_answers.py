"""One request at two servers: their answers, without what is each server's own."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import httpx

from nemotrt.serve.processes.run_folder import ServerState
from support.door_values import DOORS, HI, SCHEMA, Door

Json = dict[str, Any]
# Random, or the clock's.
OWN = ("id", "created", "created_at", "completed_at", "call_id", "item_id", "sequence_number")
# Which request finds the prefix that another one kept is chance.
OWN += ("prompt_tokens_details", "input_tokens_details", "cache_read_input_tokens", "input_tokens")
GROWS = ("content", "reasoning", "reasoning_content", "arguments", "text", "thinking", "delta")
GROWS += ("partial_json",)
LEAST = {"max_tokens": 12, "temperature": 0, "seed": 5, "max_output_tokens": 12}
CHAT, TEXT, RESPONSES, MESSAGES = DOORS[:4]
FORCED = {"tool_choice": "required", "max_tokens": 60}
CONTINUED = [*HI, {"role": "assistant", "content": "The engine"}]
FORM = {"type": "json_schema", "name": "car", "schema": SCHEMA}
FURTHER: list[tuple[Door, Json]] = [
    (CHAT, {"tools": CHAT.values["tools"], **FORCED, "n": 2, "temperature": 1}),
    (CHAT, {"tools": CHAT.values["tools"], **FORCED, "parallel_tool_calls": False}),
    (CHAT, {"messages": CONTINUED, "continue_final_message": True, "add_generation_prompt": False}),
    (CHAT, {"structured_outputs": {"choice": ["a b", "c"]}, "reasoning_effort": "none"}),
    (CHAT, {"logprobs": True, "top_logprobs": 3, "prompt_logprobs": 2, "return_token_ids": True}),
    (TEXT, {"prompt": ["The", "A server\n", "日本"], "n": 2, "temperature": 1, "logprobs": 2}),
    (TEXT, {"prompt": [[40, 41, 42], [7]], "echo": True, "logprobs": 1, "prompt_logprobs": 1}),
    (TEXT, {"guided_grammar": 'start: "a" "b"+', "return_token_ids": True}),
    (TEXT, {"max_tokens": 0, "echo": True, "logprobs": 0}),
    (TEXT, {"prompt": "a " * 5000}),
    (RESPONSES, {"text": {"format": FORM}, "reasoning": {"effort": "none"}}),
    (RESPONSES, {"max_output_tokens": 120, "max_thinking_tokens": 8, "temperature": 1}),
    (MESSAGES, {"max_tokens": 120, "thinking": {"type": "enabled", "budget_tokens": 8}}),
    (MESSAGES, {"tools": MESSAGES.values["tools"], "tool_choice": {"type": "any"}}),
    (MESSAGES, {"max_tokens": 60, "stop_sequences": ["the", "a"]}),
]


def add(whole: Json, more: Json) -> None:
    """Add a piece of a streamed answer to the whole, in place."""
    for name, value in more.items():
        old = whole.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            add(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            for entry in value:
                index = entry.get("index") if isinstance(entry, dict) else None
                same = [o for o in old if index is not None and o["index"] == index]
                if same:
                    add(same[0], entry)
                else:
                    old.append(entry)
        elif name in GROWS and isinstance(old, str) and isinstance(value, str):
            whole[name] = old + value
        elif value is not None or name not in whole:
            whole[name] = value


def whole_of(parts: list[Json]) -> list[Json]:
    """Return a stream's parts without how the server cut them."""
    wholes: list[Json] = []
    for part in parts:
        last = wholes[-1] if wholes else {}
        is_next = part.get("type") == last.get("type") and ("type" not in part or "delta" in part)
        if last and is_next and part.get("index") == last.get("index"):
            add(last, part)
        else:
            wholes.append(part)
    for whole in wholes:
        whole.get("choices", []).sort(key=lambda choice: choice["index"])  # each as it comes
        whole.get("message", {}).pop("usage", None)  # of how many tokens the first event tells
    return wholes


def without(names: Iterable[str], value: Any) -> Any:
    """Return a JSON value without members of these names."""
    if isinstance(value, (list, tuple)):
        return [without(names, entry) for entry in value]
    if isinstance(value, dict):
        return {name: without(names, child) for name, child in value.items() if name not in names}
    return value


async def ask(client: httpx.AsyncClient, path: str, body: Json) -> tuple[int, Any]:
    answer = await client.post(path, json=body)
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.status_code, without(OWN, answer.json())
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    parts = [without(OWN, json.loads(line)) for line in lines if line != "[DONE]"]
    return answer.status_code, (whole_of(parts), lines[-1] == "[DONE]")


def answers(server: ServerState, asked: list[tuple[str, Json]]) -> list[tuple[int, Any]]:
    base = server.openai_url.removesuffix("/v1")

    async def all_of_them() -> list[tuple[int, Any]]:
        limits = httpx.Limits(max_connections=8)
        async with httpx.AsyncClient(base_url=base, timeout=None, limits=limits) as client:
            return await asyncio.gather(*(ask(client, path, body) for path, body in asked))

    return asyncio.run(all_of_them())


def patient(door: Door, extra: Json) -> Json:
    """Return a body with `extra`, short and greedy where that says nothing, and no deadline."""
    fields = door.schema.model_fields
    least = {name: value for name, value in LEAST.items() if name in fields}
    body = {**door.least, **least, **extra}
    return body | ({"timeout_ms": 600_000} if "timeout_ms" in body else {})


def whole_and_streamed(door: Door, extras: Iterable[Json]) -> list[tuple[str, Json]]:
    """Return the path and a body with each of `extras`, streamed too where that may be."""
    bodies = [patient(door, extra) for extra in extras]
    may_stream = "stream" in door.schema.model_fields
    streamed = [body | {"stream": True} for body in bodies if may_stream]
    return [(door.path, body) for body in bodies + streamed]


def is_alike(mine: Any, theirs: Any) -> bool:
    """Whether two answers are the same; onnxruntime's logits are, in other company, to 1e-4."""
    if isinstance(mine, float) and isinstance(theirs, float):
        return abs(mine - theirs) <= 1e-4
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(is_alike(mine[k], theirs[k]) for k in mine)
    if isinstance(mine, list | tuple) and isinstance(theirs, list | tuple):
        return len(mine) == len(theirs) and all(map(is_alike, mine, theirs))
    return bool(mine == theirs)


def check_same(one: ServerState, other: ServerState, asked: list[tuple[str, Json]]) -> None:
    """Assert that both answer alike, and most of it with an answer."""
    left, right = answers(one, asked), answers(other, asked)
    for (path, body), mine, theirs in zip(asked, left, right, strict=True):
        if body.get("parallel_tool_calls") is False:  # it is stopped, after as many as came
            mine, theirs = without(["usage"], mine), without(["usage"], theirs)
        assert is_alike(mine, theirs), (path, body, mine, theirs)
    assert sum(status == 200 for status, _ in left) > len(left) * 2 / 3
