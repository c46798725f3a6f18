"""A strict function's call keeps its schema though nothing forces it; text is free before it."""

import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from nemotrt.engines.model.families import DEFAULT, FAMILIES, NEMOTRON_3, CallFormat
from nemotrt.engines.runtime.sampling.guide import Allowed
from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.guided import chat_guide_inputs
from nemotrt.serve.front.schema.requests import ChatRequest, Function
from nemotrt.serve.front.tools.tool_calls import ToolCallParser

SCHEMA = {
    "type": "object",
    "properties": {"場所": {"enum": ["東京", "x"]}, "n": {"type": "integer"}},
    "required": ["場所", "n"],
    "additionalProperties": False,
}
LOOSE = Function(name="loose", parameters={"type": "object", "minProperties": 7})
TOOLS = [Function(name="paint", parameters=SCHEMA, strict=True), LOOSE]
FORMATS = [family.calls for family in FAMILIES]


def lark(calls: CallFormat, *tools: Function, **more: Any) -> str:
    offered = [{"type": "function", "function": tool.model_dump()} for tool in tools or TOOLS]
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": offered, **more}
    return chat_guide_inputs(ChatRequest.model_validate(body), calls).get(
        "guided_decoding_guide", ""
    )


def answer(calls: CallFormat, text: str) -> tuple[str, list[tuple[str, Any]]]:
    """Return (content, calls) as a client gets them."""
    parser = ToolCallParser(calls, None, {tool.name: tool.parameters for tool in TOOLS})
    (content, deltas), (rest, more) = parser.push(text), parser.flush()
    found: list[list[str]] = []
    for delta in deltas + more:
        if delta.name is not None:
            found.append([delta.name, ""])
        found[-1][1] += delta.arguments
    return content + rest, [(name, json.loads(arguments)) for name, arguments in found]


@pytest.mark.parametrize("calls", FORMATS, ids=["Nemotron", "Qwen3", "Nemotron 3"])
@pytest.mark.parametrize("said", ["", "Ok.\n\n", "東京は <TOOL <tool_call <"])
def test_whatever_is_drawn_behind_the_tag_keeps_the_schema(tokenizer, grammars, calls, said):
    random = np.random.default_rng(len(said))
    names = set()
    for _ in range(4):
        guide = grammars.guide("lark", lark(calls))
        text = said + calls.before + ("<function=" if "<function=" in str(calls.call) else "")
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert guide.matcher.consume_tokens(ids)
        for _ in range(400):
            rule = guide.rule()
            if not isinstance(rule, Allowed):
                break
            token = int(random.choice(np.flatnonzero(rule.mask)))
            if token in tokenizer.eos_ids:
                break
            ids.append(token)
            guide.push(token, "")
        else:
            continue  # an even draw may go on for long
        text = tokenizer.decode(ids, skip_special_tokens=False)
        content, found = answer(calls, text)
        assert content.strip() == said.strip() and found
        for name, arguments in found:
            names.add(name)
            if name == "paint":
                jsonschema.validate(arguments, SCHEMA)
    assert names <= {"paint", "loose"}


@pytest.mark.parametrize("calls", FORMATS, ids=["Nemotron", "Qwen3", "Nemotron 3"])
@pytest.mark.parametrize("text", ["", "Ok.", "a < b << <TOOL", "{}[] 東京\n\n</x>"])
def test_a_text_without_calls_is_free_and_may_end_anywhere(tokenizer, grammars, calls, text):
    guide = grammars.guide("lark", lark(calls))
    assert guide.matcher.is_accepting()
    ids = tokenizer.encode(text, add_special_tokens=False)
    for count, token in enumerate(ids, 1):
        assert guide.matcher.consume_tokens([token])
        is_whole = not tokenizer.decode(ids[:count]).endswith("\ufffd")
        assert guide.matcher.is_accepting() is is_whole


@pytest.mark.parametrize("is_parallel", [True, False])
def test_calls_that_are_not_parallel_are_one(tokenizer, grammars, is_parallel) -> None:
    calls = DEFAULT.calls
    guide = grammars.guide("lark", lark(calls, parallel_tool_calls=is_parallel))
    call = json.dumps({"name": "paint", "arguments": {"場所": "x", "n": 5}}, ensure_ascii=False)
    pair = tokenizer.encode(f"{calls.before}{call}{calls.between}", add_special_tokens=False)
    assert (guide.matcher.validate_tokens(pair) == len(pair)) is is_parallel


def test_only_a_strict_function_brings_a_grammar(grammars) -> None:
    plain = [
        tool.model_copy(update={"strict": strict})
        for tool, strict in zip(TOOLS, (False, None), strict=True)
    ]
    assert lark(DEFAULT.calls, *plain) == "" == lark(DEFAULT.calls, tool_choice="none")
    assert lark(DEFAULT.calls, tool_choice="auto") == lark(DEFAULT.calls) != ""
    kept = Function(
        name="a", parameters={"type": "object", "dependencies": {"x": ["y"]}}, strict=True
    )
    with pytest.raises(ConfigError, match="dependencies"):
        grammars.guide("lark", lark(DEFAULT.calls, kept))
    with pytest.raises(ApiError, match="dependencies"):
        lark(NEMOTRON_3.calls, kept)
