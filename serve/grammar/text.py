"""A request's grammar in llguidance's own form; JSON within it has bounded whitespace."""

import json
import re
from collections.abc import Callable

from nemotrt.errors import ConfigError, unknown_name
from nemotrt.serve.grammar.json_schema import bounded_schema, read_schema

# Tokens within which `%json` is no directive. Source: llguidance, parser/src/lark/lexer.rs.
LARK_TOKEN = re.compile(
    r'(?P<string>"(?:\\.|[^"\\\n])*")'
    r"|(?P<comment>(?:#|//)[^\n]*)"
    r"|(?P<regex>/(?:\\.|[^/\\])+/)"
    r"|(?P<special><[^<>\s]+>)"
    r"|%(?P<directive>json|regex|llguidance)\b",
    re.DOTALL,
)
NOT_SPACE = re.compile(r"\S")


def grammar_text(kind: str, guide: str) -> str:
    """Return the grammar of a guide.

    Args:
        kind: json (any object), json_schema, regex, lark, or ebnf_grammar (GBNF, as llama.cpp and
            NVIDIA's backend have it).
        guide: the schema, expression or grammar; nothing for json.

    Raises:
        ConfigError: the kind is unknown, the guide is missing or malformed, or a schema in it is
            refused.
    """
    from llguidance import LLMatcher

    def lark(text: str) -> str:
        return str(LLMatcher.grammar_from_lark(bounded_lark(text)))

    writers: dict[str, Callable[[], str]] = {
        "json": lambda: _json_grammar('{"type": "object"}'),
        "json_schema": lambda: _json_grammar(guide),
        "regex": lambda: str(LLMatcher.grammar_from_regex(guide)),
        "lark": lambda: lark(guide),
        "ebnf_grammar": lambda: lark(_lark_of(guide)),
    }
    if kind not in writers:
        raise unknown_name("guided_decoding_guide_type", kind, writers)
    if kind == "json" and guide:
        raise ConfigError("guided_decoding_guide_type json takes no guide; json_schema has one.")
    if kind != "json" and not guide.strip():
        raise ConfigError(f"guided_decoding_guide_type {kind} needs a guided_decoding_guide.")
    return writers[kind]()


def _lark_of(gbnf: str) -> str:
    """Return a GBNF grammar as Lark.

    Raises:
        ConfigError: it is malformed.
    """
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return str(gbnf_to_lark(gbnf))
    except RecursionError:
        raise ConfigError("the grammar is nested too deeply.") from None
    except Exception as error:  # the library's own class is not public, and it has plain faults
        raise ConfigError(f"the ebnf_grammar is malformed: {error}.") from error


def bounded_lark(lark: str) -> str:
    """Return a Lark grammar whose `%json` schemas have bounded whitespace.

    Raises:
        ConfigError: a schema is malformed, or asks for what the grammar can't keep.
    """
    pieces, start = [], 0
    while match := LARK_TOKEN.search(lark, start):
        end = match.end()
        pieces.append(lark[start:end])
        if match["directive"]:
            start, end = end, _json_end(lark, end)
            value = lark[start:end]
            is_schema = match["directive"] == "json"
            pieces.append(json.dumps(bounded_schema(read_schema(value))) if is_schema else value)
        start = end
    return "".join([*pieces, lark[start:]])


def _json_end(text: str, start: int) -> int:
    """Return where the JSON value ends that begins at `start`, or after white space there."""
    found = NOT_SPACE.search(text, start)
    try:
        _, end = json.JSONDecoder().raw_decode(text, found.start() if found else len(text))
    except RecursionError:
        raise ConfigError("the grammar's JSON is nested too deeply.") from None
    except ValueError as error:
        raise ConfigError(f"the grammar's JSON is not JSON: {error}.") from error
    return end


def _json_grammar(schema: str) -> str:
    return json.dumps({"grammars": [{"json_schema": bounded_schema(read_schema(schema))}]})
