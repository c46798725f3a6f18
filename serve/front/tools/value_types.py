"""Which types of JSON a tool's schema lets an argument have.

Where a call is an element, a value does not say of itself whether it is a string.
"""

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any]
Types = frozenset[str]
NUMBERS = frozenset({"integer", "number"})
STRING, NULL = frozenset({"string"}), frozenset({"null"})
CONTAINERS = frozenset({"object", "array"})
ALL_TYPES = STRING | NULL | NUMBERS | CONTAINERS | {"boolean"}
NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
MAX_DEPTH = 64  # of schemas within schemas


def type_of(value: Any) -> str:
    """Return the type of a value that `json.loads` made."""
    return NAMES.get(type(value), "array" if isinstance(value, list) else "object")


class ArgumentTypes:
    """The arguments of one function. What can't be told may be anything."""

    def __init__(self, parameters: Schema | None) -> None:
        """Read `parameters`, the schema of all arguments; None: there is none."""
        self.root = parameters or {}
        self._referred: dict[str, Types] = {}  # by pointer: each is followed once
        target = self.referred(self.root["$ref"]) if "$ref" in self.root else {}
        self.whole: Schema = {**target, **self.root} if isinstance(target, Mapping) else self.root
        properties = self.whole.get("properties")
        self.properties: Schema = properties if isinstance(properties, Mapping) else {}

    def schema_of(self, name: str) -> Any:
        """Return the schema of an argument, True where there is none."""
        return self.properties.get(name, self.whole.get("additionalProperties", True))

    def of(self, schema: Any, depth: int = 0) -> Types:
        """Return the types that a schema allows."""
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            return ALL_TYPES
        return reduce(frozenset.__and__, self._limits(schema, depth + 1), ALL_TYPES) or ALL_TYPES

    def referred(self, pointer: Any) -> Any:
        """Return the schema at a pointer such as `#/$defs/colour`, None where there is none."""
        node: Any = self.root
        if not isinstance(pointer, str) or not f"{pointer}/".startswith("#/"):
            return None
        for part in unquote(pointer).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or name not in node:
                return None
            node = node[name]
        return node

    def _limits(self, schema: Schema, depth: int) -> Iterator[Types]:
        """Yield what each of a schema's keywords allows."""
        kinds = schema.get("type", list(ALL_TYPES))
        named = ALL_TYPES.intersection(kinds if isinstance(kinds, list) else [kinds])
        yield named | NUMBERS if "number" in named else named
        if isinstance(values := schema.get("enum"), list):
            yield frozenset(map(type_of, values))
        if "const" in schema:
            yield frozenset({type_of(schema["const"])})
        if "$ref" in schema:
            yield self._at(str(schema["$ref"]), depth)
        for keyword in ("anyOf", "oneOf"):
            if isinstance(branches := schema.get(keyword), list):
                yield frozenset().union(*(self.of(branch, depth) for branch in branches))
        if isinstance(parts := schema.get("allOf"), list):
            yield from (self.of(part, depth) for part in parts)

    def _at(self, pointer: str, depth: int) -> Types:
        if pointer not in self._referred:
            self._referred[pointer] = ALL_TYPES  # of a schema that refers to itself
            self._referred[pointer] = self.of(self.referred(pointer), depth)
        return self._referred[pointer]
