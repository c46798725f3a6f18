"""Every kind of grammar: complete, erring, truncated; through the scheduler, without a model."""

import json
import threading
from typing import Any

import jsonschema
import numpy as np
import pytest

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.runtime.request import FinishReason, Request
from nemotrt.engines.runtime.sampling.guide import (
    AfterThinking,
    Allowed,
    Broken,
    Complete,
    Guide,
    Rule,
    ThinkingBudget,
    rules,
)
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.text.reasoning import Trace
from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.serve.front.openai.guided import calls_grammar
from nemotrt.serve.front.schema.requests import Function
from nemotrt.serve.front.tools.tool_calls import ToolCallParser
from nemotrt.serve.grammar.grammar import GrammarCompiler
from support.flat_engine import PADDING, FlatEngine

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


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = load_tokenizer(TINY_MODELS["tiny-dense"])
    assert tokenizer is not None
    return tokenizer


@pytest.fixture(scope="module")
def grammars(tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDING, tokenizer.eos_ids)


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


def check_whole(text: str, wanted: Any) -> None:
    """Assert that a text is what its grammar promises, by readers that know no grammar."""
    if isinstance(wanted, set):
        assert text in wanted
        return
    if wanted == "calls" or (wanted == "calls or answer" and text.startswith("<")):
        calls = parsed(text)
        assert calls and {call["name"] for call in calls} <= {tool.name for tool in TOOLS}
        for call in calls:
            jsonschema.validate(json.loads(call["arguments"]), PAIR)
        return
    jsonschema.validate(json.loads(text), PAIR if wanted == "calls or answer" else wanted)
    assert text == text.strip()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", KINDS)
def test_a_complete_grammar_ends_the_request(tokenizer, grammars, name, seed) -> None:
    kind, guide, wanted = KINDS[name]
    text, reason, _ = run(tokenizer, grammars.guide(kind, guide), seed=seed)
    if name in ("json", "calls") and reason is FinishReason.LENGTH:
        return  # any object, any number of calls: an even draw may go on for long
    assert reason is FinishReason.STOP
    check_whole(text, wanted)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        {"ignore_eos": True},
        {"min_tokens": 1500},
        {"min_tokens": 1500, "ignore_eos": True},
        {"temperature": 0.0},
        {"top_k": 1},
        {"repetition_penalty": 1.5, "presence_penalty": 2.0},
    ],
)
def test_nothing_of_the_sampling_goes_past_the_end(tokenizer, grammars, name, change) -> None:
    if name in ("json", "calls", "calls or answer"):
        change = {**change, "max_tokens": 1500}  # may rightly go on to the limit
    kind, guide, wanted = KINDS[name]
    text, reason, error = run(tokenizer, grammars.guide(kind, guide), **change)
    assert not error
    if reason is FinishReason.STOP:
        check_whole(text, wanted)
    else:
        assert name in ("json", "calls", "calls or answer")


@pytest.mark.parametrize("name", KINDS)
def test_truncated_is_length_and_full_length_is_stop(tokenizer, grammars, name) -> None:
    kind, guide, wanted = KINDS[name]
    num_tokens, rule = 0, grammars.guide(kind, guide).rule()
    assert isinstance(rule, Allowed)
    for num_tokens in range(1, 60):
        text, reason, _ = run(tokenizer, grammars.guide(kind, guide), max_tokens=num_tokens)
        if reason is FinishReason.STOP:
            check_whole(text, wanted)
            break
        assert reason is FinishReason.LENGTH
    if reason is FinishReason.STOP:  # one token less was too short, so this was exactly enough
        again = run(tokenizer, grammars.guide(kind, guide), max_tokens=num_tokens + 5)
        assert again[:2] == (text, FinishReason.STOP)


@pytest.mark.parametrize("name", KINDS)
def test_a_stop_string_ends_it_before(tokenizer, grammars, name) -> None:
    kind, guide, _ = KINDS[name]
    whole, *_ = run(tokenizer, grammars.guide(kind, guide), max_tokens=100)
    stop = whole[1:2]
    text, reason, _ = run(tokenizer, grammars.guide(kind, guide), max_tokens=100, stop=(stop,))
    assert (text, reason) == (whole[: whole.index(stop)], FinishReason.STOP)


def test_every_end_id_may_end_a_text(tokenizer) -> None:
    ends = (*tokenizer.eos_ids, 77, 10**6)  # one of config.json's, and one that no logit is for
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDING, ends)
    for end in ends[:-1]:
        guide = compiler.guide("regex", "[ab]*")
        scheduler = Scheduler(
            FlatEngine(tokenizer.vocab_size, {end: 90.0}), tokenizer, eos_ids=ends
        )
        scheduler.submit(Request("r", (5,), SamplingParams(max_tokens=9), guide))
        [update] = [u for u in [*scheduler.step(), *scheduler.step()] if u.finish_reason]
        assert (update.finish_reason, update.text) == (FinishReason.STOP, ""), end


def test_padding_is_never_allowed(tokenizer, grammars) -> None:
    for lark in ("start: <[*]>", "start: <[100-4120]>", "start: /(?s:.)+/"):
        rule = grammars.guide("lark", lark).rule()
        assert isinstance(rule, Allowed) and not rule.mask[tokenizer.vocab_size :].any()
    with pytest.raises(ConfigError, match="allows no token"):
        grammars.guide("lark", f"start: <[{tokenizer.vocab_size}-{tokenizer.vocab_size + 9}]>")


def test_fewer_logits_than_ids(tokenizer) -> None:
    compiler = GrammarCompiler(tokenizer, 300, tokenizer.eos_ids)
    rule = compiler.guide("regex", "[a-z]+").rule()
    assert isinstance(rule, Allowed) and rule.mask.shape == (300,) and rule.mask.any()


def test_a_special_token_may_be_demanded(tokenizer, grammars) -> None:
    special = tokenizer.eos_ids[-1]
    text, reason, _ = run(tokenizer, grammars.guide("lark", f'start: "a" <[{special}]>'))
    assert (text, reason) == ("a", FinishReason.STOP)
    text, reason, _ = run(tokenizer, grammars.guide("lark", 'start: "a" <[3]> "b"'))
    assert reason is FinishReason.STOP and text.startswith("a") and text.endswith("b")


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


def test_text_before_the_first_token(tokenizer, grammars) -> None:
    """What follows `</think>` in the token that closes the trace belongs to the answer."""
    for before in ('{"', "\n\n{", "{", "", "\n", '{"a": true, "b": "red"'):
        guide = grammars.guide("json_schema", json.dumps(PAIR))
        guide.push_text(before)
        text, reason, _ = run(tokenizer, guide)
        assert reason is FinishReason.STOP
        jsonschema.validate(json.loads(before + text), PAIR)
    guide = grammars.guide("regex", "\n\nyes|no")
    guide.push_text("\n\n")
    assert run(tokenizer, guide)[0] == "yes"
    guide = grammars.guide("regex", "(yes|no)")
    guide.push_text("yes")
    assert isinstance(guide.rule(), Complete)
    guide.push_text("!")
    rule = guide.rule()
    assert isinstance(rule, Broken) and "'!'" in rule.reason
    guide = grammars.guide("json_schema", json.dumps(PAIR))
    guide.push_text(">>")
    assert run(tokenizer, guide)[1:] == (
        FinishReason.ERROR,
        "the answer begins with '>>', which its grammar does not allow.",
    )


def test_a_restarted_grammar_begins_again(tokenizer, grammars) -> None:
    guide = grammars.guide("json_schema", json.dumps(PAIR))
    for before in ('{"a": ', '{"a": true, "b": "red"}', ">>", ""):
        guide.push_text(before)
        guide.restart()
        assert isinstance(guide.rule(), Allowed)
    text, reason, _ = run(tokenizer, guide)
    assert reason is FinishReason.STOP
    jsonschema.validate(json.loads(text), PAIR)


class PanicException(BaseException):
    """As pyo3 raises it: no Exception."""


class Panics:
    """A matcher whose library fails in Rust."""

    def is_error(self) -> bool:
        return False

    def is_stopped(self) -> bool:
        raise PanicException("index out of bounds")

    def consume_token(self, token: int) -> bool:
        raise PanicException("index out of bounds")

    def validate_tokens(self, tokens: list[int]) -> int:
        raise PanicException("index out of bounds")


def test_a_panic_costs_its_own_request(tokenizer, grammars) -> None:
    for touch in ("rule", "push", "push_text"):
        guide = grammars.guide("regex", "a")
        guide.matcher = Panics()
        if touch == "push":
            guide.push(5, "")
        if touch == "push_text":
            guide.push_text("a")
        assert guide.rule() == Broken("the grammar failed: index out of bounds")


def told(rule: Rule) -> Any:
    """What a rule says, to be compared."""
    return ("allowed", rule.bits.tobytes()) if isinstance(rule, Allowed) else rule


def test_rules_at_one_time_are_each_guides_own(tokenizer, grammars) -> None:
    """Twins on one walk to their ends, one asked alone: of each kind, in traces, and broken."""

    def guides() -> list[Guide]:
        made: list[Guide] = [
            grammars.guide(kind, guide) for kind, guide, _ in KINDS.values() for _ in range(2)
        ]
        for trace in (Trace.BEFORE, Trace.CLOSED):
            thinking = ThinkingBudget(DEFAULT, 5, tokenizer.encode, trace)
            made.append(AfterThinking(thinking, grammars.guide("json_schema", json.dumps(PAIR))))
        broken = grammars.guide("regex", "(yes|no)")
        broken.push_text("maybe")
        erring, panicking = grammars.guide("regex", "a"), grammars.guide("regex", "a")
        erring.push(tokenizer.encode("b", add_special_tokens=False)[0], "b")
        panicking.matcher = Panics()
        return [*made, broken, erring, panicking, ThinkingBudget(DEFAULT, 0, tokenizer.encode)]

    random, together, alone = np.random.default_rng(5), guides(), guides()
    walking = list(range(len(alone) - 4))
    for _ in range(200):
        found = rules([*together, together[0]])
        assert [told(rule) for rule in found[:-1]] == [told(guide.rule()) for guide in alone]
        assert told(found[0]) == told(found[-1]) == told(together[0].rule())
        walking = [i for i in walking if isinstance(found[i], Allowed)]
        for i in walking:
            rule = found[i]
            assert isinstance(rule, Allowed)
            token = int(random.choice(np.flatnonzero(rule.mask)))
            for guide in (together[i], alone[i]):
                guide.push(token, tokenizer.decode([token], skip_special_tokens=False))
    assert len(walking) < 9, "most texts end"
    assert [type(rule) for rule in found[-5:-2]] == [Broken] * 3


def test_masks_are_made_ready_at_one_time(grammars) -> None:
    guides = [grammars.guide("regex", f"[a-z]{{{i}}}") for i in range(1, 9)]
    rules([guides[0]])  # alone, and asked already
    guides[0].batch.prepare(guides)
    assert all(guide.mask is not None and guide.mask.any() for guide in guides)
    assert not any(guide.needs_mask for guide in guides)
    guides[3].push(guides[3].rule().mask.argmax(), "")
    assert [guide.needs_mask for guide in guides] == [i == 3 for i in range(8)]


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
