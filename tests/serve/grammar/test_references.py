"""References and names in the schemas of forced calls."""

import json
from typing import Any

import jsonschema
import pytest

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.runtime.request import FinishReason
from nemotrt.errors import ConfigError
from nemotrt.serve.front.openai.guided import calls_grammar
from nemotrt.serve.front.schema.requests import Function
from support.grammars import COLOURS, parsed, run


def of(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


REFERENCES: dict[str, dict[str, Any]] = {
    "definitions": {**of(x={"$ref": "#/definitions/A"}), "definitions": {"A": COLOURS}},
    "properties": of(y=COLOURS, x={"$ref": "#/properties/y"}),
    "escapes": {**of(x={"$ref": "#/$defs/a~1b~0c%20d%C3%A9"}), "$defs": {"a/b~c dé": COLOURS}},
    "the root": {**of(a=COLOURS, x={"anyOf": [{"type": "null"}, {"$ref": "#"}]}), "title": "T"},
    "a root that is a reference": {"$ref": "#/$defs/A", "$defs": {"A": of(x=COLOURS)}},
    "siblings": {**of(x={"$ref": "#/$defs/A", "maxLength": 3}), "$defs": {"A": COLOURS}},
    "anchor": {**of(x={"$ref": "#here"}), "$defs": {"A": {"$anchor": "here", **COLOURS}}},
    "id": {
        "$id": "https://example.com/root.json",
        **of(x={"$ref": "colours.json"}, y={"$ref": "https://example.com/colours.json"}),
        "$defs": {"A": {"$id": "colours.json", **COLOURS}},
    },
    "values": of(x={"enum": [{"$ref": "#/no/such"}, {"$ref": "#/nor/this"}]}),
    "a name": of(**{"$ref": COLOURS, "$defs": {"type": "null"}, "enum": {"type": "boolean"}}),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_references_hold_in_forced_calls(tokenizer, grammars, name) -> None:
    """Beside a tool whose definitions have the same names and other contents."""
    other = {**of(x={"$ref": "#/$defs/A"}), "$defs": {"A": {"type": "null"}}}
    schema = REFERENCES[name]
    tools = [Function(name="other", parameters=other), Function(name="this", parameters=schema)]
    num_calls = 0
    for seed in range(8):
        guide = grammars.guide("lark", calls_grammar(DEFAULT.calls, tools, is_parallel=False))
        text, reason, _ = run(tokenizer, guide, seed=seed)
        assert reason is FinishReason.STOP
        [call] = parsed(text)
        arguments = json.loads(call["arguments"])
        jsonschema.validate(arguments, schema if call["name"] == "this" else other)
        num_calls += call["name"] == "this"
    assert num_calls


def test_a_reference_to_elsewhere_is_refused(grammars) -> None:
    for reference in ("http://localhost:1/a", "file:///etc/hostname", "other.json", "#/$defs/B"):
        tool = Function(name="f", parameters={**of(x={"$ref": reference}), "$defs": {"A": {}}})
        with pytest.raises(ConfigError, match=r"not present in a registry|does not exist"):
            grammars.guide("lark", calls_grammar(DEFAULT.calls, [tool]))


def test_names_and_unicode_reach_the_parser_as_they_are(tokenizer, grammars) -> None:
    name = "aZ09_.-" + "x" * 57
    values = ["é ü", "日本\u2028語", 'a"b\\c', "]}</TOOLCALL>", "\x00\t\n", "🙂", "<TOOLCALL>["]
    for value in values:
        tool = Function(name=name, parameters=of(x={"const": value}))
        guide = grammars.guide("lark", calls_grammar(DEFAULT.calls, [tool], is_parallel=False))
        text, reason, _ = run(tokenizer, guide)
        [call] = parsed(text)
        assert (call["name"], json.loads(call["arguments"])) == (name, {"x": value})
        assert reason is FinishReason.STOP


@pytest.mark.parametrize("gbnf", ["root :: x", 'root ::= "x', "root ::= missing", "(" * 5000])
def test_a_gbnf_grammar_that_is_none_is_refused(grammars, gbnf) -> None:
    with pytest.raises(ConfigError, match="grammar"):
        grammars.guide("ebnf_grammar", gbnf)
