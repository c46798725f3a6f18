"""Large and deep grammars work, or are refused at once with the reason."""

import json
import threading
from typing import Any

import jsonschema
import pytest

from nemotrt.engines.runtime.request import FinishReason
from nemotrt.engines.runtime.sampling.guide import Allowed
from nemotrt.errors import ConfigError
from support.grammars import run


def optional(count: int) -> dict[str, Any]:
    names = [f"property_{i}" for i in range(count)]
    return {
        "type": "object",
        "properties": {name: {"type": "string", "maxLength": 1} for name in names},
        "additionalProperties": False,
    }


def test_500_optional_properties_work(tokenizer, grammars) -> None:
    schema = optional(500)
    text, reason, error = run(tokenizer, grammars.guide("json_schema", json.dumps(schema)))
    assert (reason, error) == (FinishReason.STOP, "")
    jsonschema.validate(json.loads(text), schema)


def test_a_grammar_that_errs_ends_the_request_with_the_reason(tokenizer, grammars) -> None:
    """The grammar is fine for a while; then a row is too large for its parser."""
    guide = grammars.guide("json_schema", json.dumps(optional(1500)))
    text, reason, error = run(tokenizer, guide)
    assert reason is FinishReason.ERROR and "max is 4000" in error
    assert text.strip() in ("{", '{"', '{"property_', '{"p')  # nothing after the fault


REFUSED = [
    ("zebra", "x", "unknown guided_decoding_guide_type 'zebra'"),
    ("regex", "", "needs a guided_decoding_guide"),
    ("lark", "  ", "needs a guided_decoding_guide"),
    ("json_schema", "", "needs a guided_decoding_guide"),
    ("json", "{}", "takes no guide"),
    ("regex", "(", "unclosed group"),
    ("regex", "(?=a)b", "look-around"),
    ("regex", r"[^\s\S]", "allows no text"),
    ("regex", "\ud800", "surrogates not allowed"),
    ("lark", "start: start", "allows no text"),
    ("lark", "begin: /a/", "start"),
    ("lark", "start: <|nope|>", "unknown special token"),
    ("lark", "start: %json", "not JSON"),
    ("lark", 'start: %json {"not": {}}', 'Unimplemented keys: ["not"]'),
    ("lark", 'start: %json {"x-guidance": {}}', "x-guidance is not supported"),
    ("json_schema", "{", "not JSON"),
    ("json_schema", "[]", "must be an object"),
    ("json_schema", "null", "must be an object"),
    ("json_schema", "false", "must be an object"),
    ("json_schema", '{"type": "zebra"}', "Invalid type: zebra"),
    ("json_schema", '{"not": {}}', 'Unimplemented keys: ["not"]'),
    ("json_schema", '{"if": {}}', "Unimplemented keys"),
    ("json_schema", '{"type": "array", "uniqueItems": true}', "Unimplemented keys"),
    ("json_schema", '{"type": "string", "format": "zebra"}', "Unknown format"),
    ("json_schema", '{"type": "string", "pattern": "("}', "unclosed group"),
    ("json_schema", '{"type": "string", "minLength": 3, "maxLength": 2}', "Unsatisfiable"),
    ("json_schema", '{"enum": []}', "Unsatisfiable"),
    ("json_schema", '{"type": "number", "multipleOf": 0}', "multiple"),
    ("json_schema", '{"type": "integer", "minimum": 1e300}', "integer range"),
    ("json_schema", '{"type": "integer", "maximum": NaN}', "NaN is no number"),
    ("json_schema", '{"type": "integer", "maximum": -Infinity}', "-Infinity is no number"),
    ("json_schema", '{"type": "integer", "maximum": 1e400}', "too large a number"),
    ("json_schema", f'{{"const": 1{"0" * 400}}}', "beyond 2^53"),
    ("json_schema", f'{{"type": "integer", "maximum": 1{"0" * 5000}}}', "4300 digits"),
    ("json_schema", '{"items":' * 10_000 + "true" + "}" * 10_000, "nested too deeply"),
    ("json_schema", '{"items":' * 200 + "true" + "}" * 200, "recursion limit"),
    ("json_schema", '{"$ref": "#"}', "allows no text"),
    ("json_schema", '{"$ref": "#/$defs/A"}', "does not exist"),
    ("json_schema", '{"$ref": "http://localhost:1/a.json"}', "does not fetch"),
    ("json_schema", '{"$ref": "file:///etc/hostname"}', "does not fetch"),
    ("json_schema", '{"x-guidance": {"lenient": true}, "not": {}}', "x-guidance is not supported"),
    ("json_schema", '{"type": "object", "minProperties": 2}', "minProperties"),
    ("json_schema", '{"const": 0.30000000000000004}', "more than 15 digits"),
    ("json_schema", '{"const": 9007199254740993}', "beyond 2^53"),
    ("json_schema", '{"items": {"enum": [{"a": [-9007199254740993]}]}}', "beyond 2^53"),
]


@pytest.mark.parametrize(("kind", "guide", "reason"), REFUSED)
def test_what_can_be_known_is_refused_at_once(grammars, kind, guide, reason) -> None:
    with pytest.raises(ConfigError) as caught:
        grammars.guide(kind, guide)
    assert reason in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    "bounds",
    [
        {"maximum": 1e300},
        {"minimum": -1e300},
        {"exclusiveMaximum": 10**300, "minimum": 1},
        {"minimum": -(2**63), "maximum": 2**63 - 1},  # what int64 is in many a schema
    ],
)
def test_huge_bounds_of_an_integer_work(tokenizer, grammars, bounds) -> None:
    schema = {"type": "integer", **bounds}
    for seed in range(5):
        guide = grammars.guide("json_schema", json.dumps(schema))
        text, reason, _ = run(tokenizer, guide, seed=seed)
        assert reason is FinishReason.STOP
        jsonschema.validate(json.loads(text), schema)


def test_bounds_that_are_no_float_are_kept(tokenizer, grammars) -> None:
    """2^53 + 1 is no float64: the nearest one is outside of the bound."""
    schema = {"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 7}
    schema["description"] = "all but two are allowed"
    for seed in range(8):
        guide = grammars.guide("json_schema", json.dumps({"properties": {"const": schema}}))
        assert isinstance(guide.rule(), Allowed)
        text, *_ = run(tokenizer, grammars.guide("json_schema", json.dumps(schema)), seed=seed)
        jsonschema.validate(json.loads(text), schema)


CHAINS = {
    "references": json.dumps(
        {
            "$ref": "#/$defs/0",
            "$defs": {
                **{str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(6000)},
                "6000": {"enum": ["end"]},
            },
        }
    ),
    "rules": "\n".join(["start: r0", *(f"r{i}: r{i + 1}" for i in range(9000)), 'r9000: "end"']),
    "terminals": "\n".join(
        ["start: R0", *(f"R{i}: R{i + 1}" for i in range(9000)), 'R9000: "end"']
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_long_chain_does_not_overflow_the_stack(tokenizer, grammars, name) -> None:
    """Each ended the whole process: llguidance recurses, and a thread's stack has a size."""
    kind = "json_schema" if name == "references" else "lark"
    usual = threading.stack_size()
    guide = grammars.guide(kind, CHAINS[name])
    assert threading.stack_size() == usual
    text, reason, _ = run(tokenizer, guide)
    assert (text.strip('"'), reason) == ("end", FinishReason.STOP)
