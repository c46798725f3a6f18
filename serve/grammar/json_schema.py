"""A client's JSON schema as llguidance gets it: whole, bounded in whitespace, or refused."""

import json
import math
from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

from nemotrt.errors import ConfigError
from nemotrt.files.text_file import once_each

# One space, or up to two newlines and an indent: what models are trained to write, without a loop.
# Source: llama.cpp, common/json-schema-to-grammar.cpp, SPACE_RULE.
WHITESPACE = r"[ ]|\n{1,2}[ \t]{0,20}"
OPTIONS = "x-guidance"
MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
VALUES = ("const", "enum", "default", "examples")  # hold no schemas, whatever they look like
LOWER, UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
LARGEST_EXACT = 2**53
NUM_DIGITS = 15  # of a decimal that float64 always tells from its neighbours
LARGEST_INTEGER = 2**63 - 1024  # the last float64 below 2^63
Schema = dict[str, Any]


def read_schema(text: str) -> Schema:
    """Return the JSON schema in `text`, an object.

    Raises:
        ConfigError: it is none, a number in it is none of JSON's or too large, or a name is given
            twice in one object.
    """
    try:
        schema = strict_json(text)
    except RecursionError:
        raise ConfigError("the JSON schema is nested too deeply.") from None
    except ValueError as error:
        raise ConfigError(f"the JSON schema is not JSON: {error}.") from error
    if not isinstance(schema, dict):
        raise ConfigError("the JSON schema must be an object.")
    return schema


def bounded_schema(schema: Schema) -> Schema:
    """Return the schema with bounds on whitespace, and with no answer that it would not accept.

    Raises:
        ConfigError: it has options of llguidance's, or asks for what the grammar can't keep.
    """
    for node in _schemas(schema):
        if OPTIONS in node:
            raise ConfigError(f"the JSON schema's {OPTIONS} is not supported; leave it out.")
        _check_min_properties(node)
        for name in ("const", "enum"):
            _check_exact(name, node.get(name))
        _round_bounds(node)
    options = {"whitespace_flexible": False, "whitespace_pattern": WHITESPACE}
    return {OPTIONS: options, **schema}


def strict_json(text: str | bytes) -> Any:
    """Return the value of a JSON text that each reader takes for the same.

    Raises:
        ValueError: it is no JSON, a number in it is none of JSON's or too large, or a name is given
            twice in one object.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
        text, parse_constant=no_number, parse_float=_finite, object_pairs_hook=once_each
    )


def no_number(name: str) -> float:
    """Raise ValueError: it is NaN or Infinity."""
    raise ValueError(f"{name} is no number of JSON's")


def _finite(text: str) -> float:
    """Return a number; raise ValueError where no float64 holds it."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _schemas(root: Schema) -> Iterator[Schema]:
    """Yield every object in `root` that may be a schema, itself included."""
    nodes: list[tuple[Any, bool]] = [(root, False)]
    while nodes:
        node, is_map = nodes.pop()
        if isinstance(node, list):
            nodes += [(child, False) for child in node]
        elif isinstance(node, dict):
            if not is_map:
                yield node
            nodes += [
                (child, not is_map and name in MAPS)
                for name, child in node.items()
                if is_map or name not in VALUES
            ]


def _check_min_properties(node: Schema) -> None:
    """Refuse a least number of properties that one name written twice would seem to reach."""
    least, required = node.get("minProperties"), node.get("required")
    if not isinstance(least, int):
        return  # llguidance says what is wrong with it
    num_required = len(required) if isinstance(required, list) else 0
    if least > num_required + 1:
        raise ConfigError(
            f"the JSON schema's minProperties is at most the number of required properties plus "
            f"one ({num_required + 1}), got {least}: the grammar can't tell names apart."
        )


def _check_exact(name: str, value: Any) -> None:
    """Refuse a number that the grammar would write as another."""
    values = [value]
    while values:
        value = values.pop()
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int | float) and not _is_exact(value):
            raise ConfigError(
                f"the JSON schema's {name} has the number {value}, which the grammar would round: "
                "beyond 2^53, or more than 15 digits; let it be a string."
            )


def _is_exact(value: int | float) -> bool:
    """Whether llguidance reads the number that is meant, and not its neighbour.

    Source: serde_json without float_roundtrip, whose parse is exact for 53 bits and 10^22.
    """
    if isinstance(value, int):
        return abs(value) <= LARGEST_EXACT
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    if len(digits) > NUM_DIGITS or abs(value) > LARGEST_EXACT:
        return False
    return int(exponent) >= -22


def _round_bounds(node: Schema) -> None:
    """Round bounds inwards to what llguidance reads: an integer's within 64 bits."""
    is_integer = node.get("type") == "integer"
    for names, direction in ((LOWER, 1), (UPPER, -1)):
        for name in names:
            bound = node.get(name)
            if isinstance(bound, bool) or not isinstance(bound, int | float):
                continue
            if is_integer and bound * direction < -LARGEST_INTEGER:
                node[name] = -LARGEST_INTEGER * direction
            elif isinstance(bound, int) and abs(bound) <= LARGEST_INTEGER:
                node[name] = _inward(bound, direction)
            elif isinstance(bound, float):
                rounding = ROUND_CEILING if direction > 0 else ROUND_FLOOR
                context = Context(prec=NUM_DIGITS, rounding=rounding)
                node[name] = float(context.create_decimal(repr(bound)))


def _inward(bound: int, direction: int) -> int:
    """Return the integer nearest to `bound`, in a direction, that is a float64."""
    value = float(bound)
    if (bound - int(value)) * direction > 0:
        value = math.nextafter(value, direction * math.inf)
    return int(value)
