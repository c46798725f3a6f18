"""Random schemas, expressions and grammars: refused with a reason, or kept to the letter."""

import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.runtime.sampling.guide import Allowed, Broken, Complete
from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.grammar.guide import GrammarGuide
from nemotrt.serve.grammar.text import bounded_lark
from support.examples import up_to
from support.random_schemas import ODD_SCHEMAS, schemas

MAX_TOKENS = 60
MAX_WHITESPACE_CHARACTERS = 22  # two newlines and an indent of 20
STRING = re.compile(r'"(?:\\.|[^"\\])*(?:"|$)', re.DOTALL)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = load_tokenizer(TINY_MODELS["tiny-dense"])
    assert tokenizer is not None
    return tokenizer


@pytest.fixture(scope="module")
def grammars(tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size, tokenizer.eos_ids)


def drawn(guide: GrammarGuide, tokenizer: Tokenizer, seed: int) -> tuple[str, bool]:
    """Return a text of evenly drawn allowed tokens, and whether it is whole."""
    random, ids = np.random.default_rng(seed), []
    for _ in range(MAX_TOKENS):
        rule = guide.rule()
        if isinstance(rule, Complete):
            return tokenizer.decode(ids), True
        if isinstance(rule, Broken):
            break
        assert isinstance(rule, Allowed)
        ids.append(int(random.choice(np.flatnonzero(rule.mask))))
        if ids[-1] in tokenizer.eos_ids:
            return tokenizer.decode(ids[:-1]), True
        guide.push(ids[-1], "")
    return tokenizer.decode(ids), False


def longest_whitespace(text: str) -> int:
    """Return the longest run of white space outside of strings."""
    return max((len(run) for run in re.findall(r"\s+", STRING.sub('""', text))), default=0)


def check(schema: dict[str, Any], guide: GrammarGuide, tokenizer: Tokenizer, seed: int) -> bool:
    """Assert that a drawn text is bounded in white space and, if whole, fits; return that."""
    text, is_whole = drawn(guide, tokenizer, seed)
    assert longest_whitespace(text) <= MAX_WHITESPACE_CHARACTERS
    if not is_whole:
        return False
    try:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    except RecursionError:  # the oracle's, on a schema that refers to itself and to nothing else
        return False
    return True


def num_whole(grammars, tokenizer, examples: int) -> int:
    """Return how many of random schemas' texts were whole; each was checked."""
    count = 0

    @settings(max_examples=examples, deadline=None)
    @given(schemas(), st.integers(0, 2**32))
    def run(schema, seed) -> None:
        nonlocal count
        try:
            guide = grammars.guide("json_schema", json.dumps(schema))
        except ConfigError:
            return
        count += check(schema, guide, tokenizer, seed)

    run()
    print(f"{examples} schemas, {count} whole texts")
    return count


def test_a_whole_text_fits_its_schema(grammars, tokenizer) -> None:
    assert num_whole(grammars, tokenizer, 300) > 50


@pytest.mark.slow
def test_whole_texts_of_10000_schemas_fit_them(grammars, tokenizer) -> None:
    assert num_whole(grammars, tokenizer, 10_000) > 2000


@settings(max_examples=up_to(300), deadline=None)
@given(schema=ODD_SCHEMAS, is_lark=st.booleans())
def test_no_schema_makes_more_than_a_refusal(grammars, tokenizer, schema, is_lark) -> None:
    text = json.dumps(schema)  # NaN and Infinity included
    try:
        if is_lark:
            guide = grammars.guide("lark", f'start: "<" a ">"\na: %json {text}')
        else:
            guide = grammars.guide("json_schema", text)
    except ConfigError as error:
        assert error.message and len(error.message) < 10_000
        return
    drawn(guide, tokenizer, 1)


@settings(max_examples=up_to(150), deadline=None)
@given(st.sampled_from(["regex", "lark", "json_schema", "json"]), st.text(max_size=40))
def test_no_text_makes_more_than_a_refusal(grammars, tokenizer, kind, text) -> None:
    try:
        guide = grammars.guide(kind, text)
    except ConfigError:
        return
    drawn(guide, tokenizer, 1)


PIECES = [
    "start",
    ":",
    "|",
    "(",
    ")",
    "+",
    "*",
    "?",
    '"a"',
    "/b/",
    "~",
    "&",
    "\n",
    "%json",
    "{",
    "}",
]
PIECES += [
    "{}",
    '{"type": "null"}',
    "A",
    "r",
    "%ignore",
    "%import common.WS",
    "#",
    "//",
    "<[5]>",
    '"',
]
PIECES += ["%llguidance {}", "%regex", "[lazy]", "{2,3}", "->", "%lark", "@x", '"\\x41"', "\\"]


@settings(max_examples=up_to(200), deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join), st.booleans())
def test_no_lark_makes_more_than_a_refusal(grammars, tokenizer, text, has_start) -> None:
    try:
        guide = grammars.guide("lark", f"start: {text}" if has_start else text)
    except ConfigError:
        return
    drawn(guide, tokenizer, 1)


@pytest.mark.parametrize("seed", range(12))
def test_values_end_where_whitespace_alone_would_not(grammars, tokenizer, seed) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "boolean"},
            "b": {"type": "integer", "minimum": -99, "maximum": 99},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
    }
    lark = f"start: %json {json.dumps(schema)}"
    for kind, guide in (("lark", lark), ("json_schema", json.dumps(schema))):
        assert check(schema, grammars.guide(kind, guide), tokenizer, seed)


@pytest.mark.parametrize(
    "text",
    ['{"a": true, "b": 1}', '{"a":true,"b":1}', '{\n  "a": true,\n  "b": 1\n}', '{ "a" : true }'],
)
def test_what_models_write_is_allowed(grammars, text) -> None:
    for kind, guide in (("json", ""), ("lark", 'start: %json {"type": "object"}')):
        made = grammars.guide(kind, guide)
        made.push_text(text)
        assert isinstance(made.rule(), Complete)


@pytest.mark.parametrize("gap", ["  ", "\n\n\n", "\r\n", "\t", "\n" + " " * 21])
def test_more_whitespace_is_not(grammars, gap) -> None:
    made = grammars.guide("json", "")
    made.push_text("{" + gap)
    assert isinstance(made.rule(), Broken)


UNCHANGED = [
    'start: "%json {" /%json {/ // %json {\n# %json {',
    'start: "\\"%json" a\na: /\\/%json/',
    '%llguidance {"no_forcing": true}\nstart: %regex {"substring_words": "%json ["}',
    'start: "a"i /b/i "//" "#" /[/]/',
    'start: <a#b> <"> <//> x',
]


@pytest.mark.parametrize("lark", UNCHANGED)
def test_only_schemas_of_a_lark_grammar_change(lark) -> None:
    assert bounded_lark(lark) == lark
    changed = bounded_lark(lark + '\nx: %json{"type":"null"}y\nz: %json {"enum": ["%json {"]}')
    assert changed.startswith(lark) and changed.count("whitespace_pattern") == 2
    assert changed.count("}y\n") == 1
