"""What a string may say that stands in an argument's element as it is, in a grammar's words."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import chain, product
from math import prod
from typing import Any

from nemotrt.engines.model.families import XmlCall
from nemotrt.errors import ConfigError
from nemotrt.serve.front.tools.element_value import ElementValue
from nemotrt.serve.front.tools.value_types import (
    ALL_TYPES,
    CONTAINERS,
    MAX_DEPTH,
    NULL,
    STRING,
    ArgumentTypes,
    Types,
)

Flat = Mapping[str, Any]  # a schema that is not made of others, where it may be a string
COMBINED = ("$ref", "anyOf", "oneOf", "allOf")
UNKEPT = ("not", "if", "format", "contentEncoding", "$dynamicRef", "$recursiveRef")
MAX_ALTERNATIVES = 256
ANY = "(?s:.*)"
SPACES = r"[ \n\r\t]*"
# With what a value of a type begins, as `ElementValue` reads it.
START_OF_JSON = {
    "object": r"\{",
    "array": r"\[",
    "integer": "-?[0-9]",
    "number": "-?[0-9]",
    "boolean": "(?i:true|false)",
}
LIMITS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("enum", "const", "not", "if", "$dynamicRef", *COMBINED),
)


class Texts:
    """The strings of a form. Each ends with its closing tag and the `<` of what follows."""

    def __init__(self, form: XmlCall, end: str) -> None:
        """Start without a string; `end` closes a block of calls."""
        self.close = f"\n{form.parameter.close}\n<"
        self.terminals: dict[str, str] = {}  # names by regular expressions
        opens, function, end = map(_literal, (form.parameter.open, form.function.close, end))
        close = _literal(form.parameter.close)
        # What ends a value for who reads it; at a line's start so does an argument's tag.
        self._ends = f"{close}{SPACES}({opens}|{function}|{end})|{function}{SPACES}{end}"
        self._line_start = opens

    def items(self, schemas: tuple[Flat, ...], kinds: Types, bound: Types) -> Iterator[str]:
        """Yield what a string may be that each of `schemas` allows, each an item of a Lark rule.

        Args:
            schemas: what has to hold.
            kinds: all types that the value may have.
            bound: those that are held to more than their type: no string may begin as one of them.

        Raises:
            ConfigError: a schema asks for what can't be kept.
        """
        unkept = next((word for word in UNKEPT for schema in schemas if word in schema), None)
        if unkept:
            raise ConfigError(
                f"a string's {unkept!r} can't be kept; leave it out, or say it by a pattern."
            )
        listed = [schema["enum"] for schema in schemas if "enum" in schema]
        listed += [[schema["const"]] for schema in schemas if "const" in schema]
        least = max((schema.get("minLength", 0) for schema in schemas), default=0)
        bounds = [schema["maxLength"] for schema in schemas if "maxLength" in schema]
        patterns = [schema["pattern"] for schema in schemas if "pattern" in schema]
        _check(least, bounds, patterns)
        if not listed:
            size = f"{{{least},{min(bounds, default='')}}}"
            sized = [f"(?s:.{size})"] if least or bounds else []
            yield self._terminal(sized, patterns, bound)
            return
        for text in listed[0]:
            is_long_enough = isinstance(text, str) and least <= len(text)
            if (
                is_long_enough
                and len(text) <= min(bounds, default=len(text))
                and all(text in others for others in listed)
                and all(re.search(pattern, text) for pattern in patterns)
            ):
                yield self._written(text, kinds)

    def _written(self, text: str, kinds: Types) -> str:
        """Return the item of one text, which has to be read as what it is."""
        value = ElementValue(kinds)
        said = (value.push(f"\n{text}") if text else "") + value.end()
        ends = re.search(f"{self._ends}|\n{self._line_start}", f"\n{text}")
        if ends or json.loads(said) != text:
            raise ConfigError(f"the model's form of calls can't write the string {text!r}.")
        return json.dumps(text + self.close, ensure_ascii=False)

    def _terminal(self, texts: list[str], patterns: list[str], bound: Types) -> str:
        """Return the name of the terminal of all texts that can be read."""
        close = _literal(self.close)
        allowed = [*texts, *map(_whole, patterns)] or [ANY]
        refused = [f"{ANY}{close}(?s:.+)", f"{ANY}({self._ends}){ANY}"]
        refused.append(f"({ANY}\n)?{self._line_start}{ANY}")
        starts = dict.fromkeys(START_OF_JSON[kind] for kind in sorted(bound))
        if starts:
            refused.append(f"{SPACES}({'|'.join(starts)}){ANY}")
        # One complement: of several the compiler makes many times as much.
        parts = [f"/{part}{close}/" for part in allowed] + [f"~/{'|'.join(refused)}/"]
        line = " & ".join(parts).replace("\n", r"\n")
        return self.terminals.setdefault(line, f"TEXT_{len(self.terminals)}")


class Alternatives:
    """Takes a schema apart into the ways in which a value may be what it allows.

    What can be no string stays as it is.
    """

    def __init__(self, types: ArgumentTypes) -> None:
        """Take schemas apart whose references are as `types` follows them."""
        self._types = types
        self._num_left = MAX_ALTERNATIVES

    def of(self, schema: Any, depth: int = 0) -> list[tuple[Flat, ...]]:
        """Return the alternatives, each with all the schemas that then hold.

        Raises:
            ConfigError: there are too many, or a reference leads nowhere.
        """
        self._num_left -= 1
        if self._num_left < 0 or depth > MAX_DEPTH:
            raise ConfigError("a schema has too many alternatives, or is nested too deeply.")
        if schema is False:
            return []
        if not isinstance(schema, Mapping):
            return [()]
        if "string" not in self._types.of(schema) or not any(word in schema for word in COMBINED):
            return [(schema,)]
        flat = {name: value for name, value in schema.items() if name not in COMBINED}
        parts: list[list[tuple[Flat, ...]]] = [[(flat,)], *self._parts(schema, depth + 1)]
        if prod(map(len, parts)) > MAX_ALTERNATIVES:
            raise ConfigError("a schema has too many alternatives.")
        return [tuple(chain.from_iterable(combined)) for combined in product(*parts)]

    def types_of(self, schemas: tuple[Flat, ...]) -> Types:
        """Return the types that all of `schemas` allow."""
        return reduce(frozenset.__and__, map(self._types.of, schemas), ALL_TYPES)

    def bound_types(self, found: list[tuple[Flat, ...]]) -> Types:
        """Return the types of alternatives that say more of a value than its type."""
        bound: set[str] = set()
        for schemas in found:
            has_limits = any(word in schema for schema in schemas for word in LIMITS)
            bound |= self.types_of(schemas) & (ALL_TYPES if has_limits else CONTAINERS)
        return frozenset(bound) - STRING - NULL

    def _parts(self, schema: Mapping[str, Any], depth: int) -> Iterator[list[tuple[Flat, ...]]]:
        """Yield the alternatives of each schema that has to hold too."""
        if "$ref" in schema:
            target = self._types.referred(schema["$ref"])
            if target is None:
                raise ConfigError(
                    f"the reference {schema['$ref']!r} can't be followed; it must be a pointer "
                    "such as #/$defs/a into the same schema."
                )
            yield self.of(target, depth)
        for part in _listed(schema, "allOf"):
            yield self.of(part, depth)
        for word in ("anyOf", "oneOf"):
            if word not in schema:
                continue
            branches = [self.of(branch, depth) for branch in _listed(schema, word)]
            kinds = [kind for found in branches for kind in set().union(*map(self.types_of, found))]
            if word == "oneOf" and len(kinds) > len(set(kinds)):
                raise ConfigError("oneOf has two schemas of one type; let it be anyOf.")
            yield list(chain.from_iterable(branches))


def _listed(schema: Mapping[str, Any], word: str) -> list[Any]:
    found = schema.get(word, [])
    if not isinstance(found, list):
        raise ConfigError(f"{word} must be a list of schemas.")
    return found


def _check(least: Any, bounds: list[Any], patterns: list[Any]) -> None:
    """Refuse bounds that are no counts, and patterns that are none."""
    for bound in (least, *bounds):
        if not isinstance(bound, int) or isinstance(bound, bool) or bound < 0:
            raise ConfigError(f"a string's length must be a whole number, got {bound!r}.")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError) as error:
            raise ConfigError(f"the pattern {pattern!r} is none: {error}.") from error


def _whole(pattern: str) -> str:
    """Return a pattern that stands anywhere in a text as one of the whole text.

    Where an anchor belongs to one alternative only, less is allowed than the schema does.
    """
    before, after = ANY, ANY
    if pattern.startswith("^"):
        before, pattern = "", pattern[1:]
    escapes = len(pattern) - len(pattern.rstrip("$").rstrip("\\")) - 1
    if pattern.endswith("$") and not escapes % 2:
        after, pattern = "", pattern[:-1]
    slashed = re.sub(r"\\.|/", lambda m: "\\/" if m[0] == "/" else m[0], pattern, flags=re.DOTALL)
    return f"{before}(?:{slashed}){after}"


def _literal(text: str) -> str:
    """Return the regular expression of a text."""
    return re.escape(text).replace("/", "\\/").replace("\\\n", "\n")
