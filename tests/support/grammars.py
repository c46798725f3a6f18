"""Grammars of every kind, and a text that a guide leads."""

import json
from typing import Any

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.runtime.request import FinishReason, Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.serve.front.openai.guided import calls_grammar
from nemotrt.serve.front.schema.requests import Function
from nemotrt.serve.front.tools.tool_calls import ToolCallParser
from support.flat_engine import FlatEngine

COLOURS = {"enum": ["red", "blue"]}
PAIR = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}, "b": COLOURS},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOLS = [Function(name="paint", parameters=PAIR), Function(name="a.b-c_9", parameters=PAIR)]
# kind, guide, what the whole text must be, by the standard library or jsonschema
KINDS: dict[str, tuple[str, str, Any]] = {
    "enum": ("json_schema", json.dumps(COLOURS), COLOURS),
    "object": ("json_schema", json.dumps(PAIR), PAIR),
    "json": ("json", "", {"type": "object"}),
    "regex": ("regex", "(yes|no)", {"yes", "no"}),
    "lark": ("lark", 'start: "x" ("y" | "zz")', {"xy", "xzz"}),
    "gbnf": ("ebnf_grammar", 'root ::= "x" end\nend ::= "y" | "zz"', {"xy", "xzz"}),
    "calls": ("lark", calls_grammar(DEFAULT.calls, TOOLS), "calls"),
    "one call": ("lark", calls_grammar(DEFAULT.calls, TOOLS, is_parallel=False), "calls"),
    "calls or answer": (
        "lark",
        calls_grammar(DEFAULT.calls, TOOLS, answer=PAIR),
        "calls or answer",
    ),
}


def run(tokenizer, guide, favour=None, **params: Any) -> tuple[str, FinishReason, str]:
    """Return (text, reason, error) of one request under a guide."""
    scheduler = Scheduler(FlatEngine(tokenizer.vocab_size, favour), tokenizer)
    params = {"max_tokens": 2000, "temperature": 1.0, "seed": 1, **params}
    scheduler.submit(Request("r", (5, 6), SamplingParams(**params), guide))
    updates = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    reason = updates[-1].finish_reason
    assert reason is not None and all(u.finish_reason is None for u in updates[:-1])
    return "".join(update.text for update in updates), reason, updates[-1].error


def parsed(text: str) -> list[dict[str, Any]]:
    """Return the calls of a text that is a list of calls and nothing else."""
    parser = ToolCallParser(DEFAULT.calls)
    (content, deltas), (rest, more) = parser.push(text), parser.flush()
    assert content + rest == ""
    calls: list[dict[str, Any]] = []
    for delta in deltas + more:
        if delta.name is not None:
            calls.append({"name": delta.name, "arguments": ""})
        calls[delta.index]["arguments"] += delta.arguments
    return calls
