"""Forced calls as elements: what the grammar lets through, the reader reads as it was meant."""

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import NEMOTRON_3
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.guided import calls_grammar
from nemotrt.serve.front.schema.requests import Function
from nemotrt.serve.front.tools.tool_calls import ToolCallParser
from nemotrt.serve.grammar.grammar import GrammarCompiler
from support.call_forms import is_tellable, written
from support.examples import up_to
from support.flat_engine import PADDING, FlatEngine

CALLS = NEMOTRON_3.calls
COLOURS = {"enum": ["red", "blue", 5, None]}


def of(required: bool = True, **properties: Any) -> dict[str, Any]:
    held = {"type": "object", "properties": properties, "additionalProperties": False}
    return held | ({"required": list(properties)} if required else {})


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TINY_MODELS["tiny"])


@pytest.fixture(scope="module")
def grammars(tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDING, tokenizer.eos_ids)


def guide_of(grammars: GrammarCompiler, *tools: Function, is_parallel: bool = False) -> Any:
    return grammars.guide("lark", calls_grammar(CALLS, list(tools), is_parallel=is_parallel))


def calls_in(text: str, *tools: Function) -> list[tuple[str, Any]]:
    """Return the calls of a text that is calls and nothing else."""
    parser = ToolCallParser(CALLS, None, {tool.name: tool.parameters for tool in tools})
    (content, deltas), (rest, more) = parser.push(text), parser.flush()
    assert content + rest == "" and not more
    calls: list[list[str]] = []
    for delta in deltas:
        if delta.name is not None:
            calls.append([delta.name, ""])
        calls[-1][1] += delta.arguments
    return [(name, json.loads(arguments)) for name, arguments in calls]


def allows(guide: Any, tokenizer: Any, text: str) -> bool:
    """Whether `text` is one that may end here."""
    matcher = guide.matcher.deep_copy()
    tokens = tokenizer.encode(text, add_special_tokens=False)
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


KEPT: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "a string": ({"type": "string"}, ["", "5", "null", "a\nb", " \n\n東京 </b>"], [5, None]),
    "an enum": ({"enum": ["red", "dark blue"]}, ["red", "dark blue"], ["green", "", "re"]),
    "lengths": (
        {"type": "string", "minLength": 2, "maxLength": 3},
        ["ab", "日本語"],
        ["a", "abcd"],
    ),
    "a pattern": ({"type": "string", "pattern": "^a/[0-9]+$"}, ["a/1", "a/12"], ["a/", "xa/1"]),
    "a long pattern": (
        {"type": "string", "minLength": 4, "pattern": "^[a-z/]+@[a-z]+\\.(com|org)$"},
        ["a/b@c.com", "x@y.org"],
        ["@c.com", "x@y.net"],
    ),
    "part of a text": ({"type": "string", "pattern": "b+"}, ["abbc", "b\nb"], ["ac"]),
    "a nullable": ({"anyOf": [{"type": "string"}, {"type": "null"}]}, [None, "x", ""], [True]),
    "a mixed enum": (COLOURS, ["red", 5, None], ["green", 6]),
    "a union": ({"type": ["string", "integer"]}, ["five", "5 apples", 5], [5.5, None, True]),
    "anything": ({}, ["five", 5, None, {"a": ["b"]}, '"'], []),
    "a union with limits": (
        {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 5}]},
        ["five", 5, 12],
        [4, True],
    ),
    "a list": ({"type": "array", "items": {"type": "string"}}, [[], ["</parameter>"]], ["[", [1]]),
    "an integer": ({"type": "integer", "minimum": 5}, [5, 77], [4, "x", ""]),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_value_is_held_to_its_schema_and_read_as_it_was_meant(tokenizer, grammars, name) -> None:
    schema, good, bad = KEPT[name]
    tool = Function(name="f", parameters=of(x=schema))
    guide = guide_of(grammars, tool)
    for value in (*good, *bad):
        calls = [("f", {"x": value})]
        text = written(NEMOTRON_3, calls)
        is_valid = jsonschema.Draft202012Validator(schema).is_valid(value)
        assert is_valid == (value in good)
        if allows(guide, tokenizer, text):
            [(_, arguments)] = calls_in(text, tool)
            jsonschema.validate(arguments, tool.parameters)
            assert not is_valid or arguments == {"x": value}
        else:
            assert not is_valid


@settings(deadline=None, max_examples=up_to(60))
@given(
    st.lists(
        st.sampled_from(
            [
                *("</parameter>", "</function>", "</tool_call>", "<parameter=x>", "<parameter=y>"),
                *("\n", " ", "a", "<", "</param", "<function=f>", "東", "5", "null"),
            ]
        ),
        max_size=7,
    ).map("".join)
)
def test_a_text_goes_through_only_if_it_is_read_whole(tokenizer, grammars, text) -> None:
    tool = Function(name="f", parameters=of(x={"type": "string"}, y={"type": "string"}))
    calls = [("f", {"x": text, "y": "z"})]
    said = written(NEMOTRON_3, calls)
    is_allowed = allows(guide_of(grammars, tool), tokenizer, said)
    if is_allowed:
        assert calls_in(said, tool) == calls
    elif is_tellable(NEMOTRON_3, calls):  # the reader knows arguments that have come already
        assert "\n<parameter=" in f"\n{text}" or "\n</parameter>\n<" in f"{text}\n<"


SCHEMAS = {
    "optional": of(False, a={"type": "string", "maxLength": 2}, b={"type": "integer"}, c=COLOURS),
    "references": {
        **of(x={"$ref": "#/$defs/A"}, y={"type": "array", "items": {"$ref": "#/$defs/A"}}),
        "$defs": {"A": {"enum": ["red", 7]}},
    },
    "a property": of(y=COLOURS, x={"anyOf": [{"type": "null"}, {"$ref": "#/properties/y"}]}),
    "an anchor": {
        **of(x={"type": "array", "items": {"$ref": "#here"}}),
        "$defs": {"A": {"$anchor": "here", **COLOURS}},
    },
    "a root that is a reference": {"$ref": "#/$defs/A", "$defs": {"A": of(x=COLOURS)}},
    "siblings": {**of(x={"$ref": "#/$defs/A", "maxLength": 3}), "$defs": {"A": COLOURS}},
    "no string": of(x={"anyOf": [{"type": "boolean"}, {"type": "null"}]}),
    "no arguments": {"type": "object", "additionalProperties": False},
    "a forbidden one": {"type": "object", "properties": {"a": False, "b": {"type": "null"}}},
    "required, not described": {**of(a={"type": "null"}), "required": ["a"]},
    "of any name": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "odd names": of(**{"a b": {"type": "null"}, 'é"\\': {"const": "é"}, "$ref": {"type": "null"}}),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_a_model_writes_keeps_the_schema(tokenizer, grammars, name) -> None:
    """A model to which all tokens are alike."""
    tool = Function(name="f", parameters=SCHEMAS[name])
    for seed in range(6):
        scheduler = Scheduler(FlatEngine(tokenizer.vocab_size), tokenizer)
        params = SamplingParams(max_tokens=400, temperature=1.0, seed=seed)
        scheduler.submit(Request("r", (5,), params, guide_of(grammars, tool)))
        updates = []
        while not scheduler.is_idle:
            updates += scheduler.step()
        assert not updates[-1].error
        if updates[-1].finish_reason == "stop":
            [(_, arguments)] = calls_in("".join(update.text for update in updates), tool)
            jsonschema.validate(arguments, SCHEMAS[name])


def test_many_tools_and_many_optional_arguments_compile(tokenizer, grammars) -> None:
    many = of(False, **{f"argument_{i}": {"type": "string"} for i in range(150)})
    guide = guide_of(grammars, Function(name="f", parameters=many))
    text = written(NEMOTRON_3, [("f", {"argument_3": "x", "argument_149": "y"})])
    assert allows(guide, tokenizer, text)
    tools = [Function(name=f"f{i}", parameters=of(x={"type": "string"})) for i in range(100)]
    guide = guide_of(grammars, *tools, is_parallel=True)
    calls = [("f7", {"x": "a"}), ("f99", {"x": "b"})]
    assert allows(guide, tokenizer, written(NEMOTRON_3, calls))


REFUSALS = [
    ({"type": "string", "format": "date"}, "'format'"),
    ({"type": "string", "not": {"const": "a"}}, "'not'"),
    ({"type": "string", "pattern": "("}, "pattern"),
    ({"type": "string", "pattern": "\\"}, "pattern"),
    ({"type": "string", "pattern": 5}, "pattern"),
    ({"type": "string", "maxLength": "5"}, "length"),
    ({"const": "a\n</parameter>\n</function>"}, "can't write the string"),
    ({"enum": ["5", 5]}, "can't write the string"),
    ({"$ref": "#/no/such"}, "can't be followed"),
    ({"$ref": "http://localhost:1/a"}, "can't be followed"),
    ({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]}, "oneOf"),
    ({"anyOf": {"type": "string"}}, "anyOf"),
]


@pytest.mark.parametrize(("schema", "word"), REFUSALS)
def test_what_a_string_can_not_be_held_to_is_refused_by_name(schema, word) -> None:
    with pytest.raises(ApiError, match="parameters of 'f'") as refusal:
        calls_grammar(CALLS, [Function(name="f", parameters=of(x=schema))])
    assert word in refusal.value.message


@pytest.mark.parametrize("word", ["allOf", "patternProperties", "minProperties", "not"])
def test_what_is_said_of_several_arguments_is_refused_by_name(word) -> None:
    with pytest.raises(ApiError, match=f"'{word}'"):
        calls_grammar(CALLS, [Function(name="f", parameters={"type": "object", word: {}})])


@pytest.mark.parametrize("name", ["", " a", "a>b", "a\nb", "x" * 1025])
def test_a_name_that_the_form_can_not_write_is_refused(name) -> None:
    with pytest.raises(ApiError, match="can't write the name"):
        calls_grammar(CALLS, [Function(name="f", parameters=of(**{name: {}}))])


def test_a_schema_that_grows_by_its_references_is_refused_in_time() -> None:
    defs = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 4} for i in range(20)}
    schema = {**of(x={"$ref": "#/$defs/d0"}), "$defs": defs | {"d20": {"type": "string"}}}
    with pytest.raises(ApiError, match="alternatives"):
        calls_grammar(CALLS, [Function(name="f", parameters=schema)])
    loop = {"$defs": {"L": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/L"}]}}}
    with pytest.raises(ApiError, match="alternatives"):
        calls_grammar(
            CALLS, [Function(name="f", parameters={**of(x={"$ref": "#/$defs/L"}), **loop})]
        )


def test_a_reference_to_elsewhere_is_refused_by_the_grammar(grammars) -> None:
    for reference in ("#", "#/properties/y"):
        schema = of(x={"type": "array", "items": {"$ref": reference}}, y={"type": "null"})
        with pytest.raises(ApiError, match=re.escape(f'"{reference}"')):
            calls_grammar(CALLS, [Function(name="f", parameters=schema)])
    schema = of(x={"type": "array", "items": {"$ref": "http://localhost:1/a"}})
    with pytest.raises(ConfigError, match=r"not present in a registry|does not exist"):
        guide_of(grammars, Function(name="f", parameters=schema))
