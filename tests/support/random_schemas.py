"""JSON schemas for property tests: right ones, and ones that are wrong in any way."""

from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]
WORDS = st.sampled_from(["a", "b", "é", "ab", "$ref", "const", "x y", 'q"', "a/b~c%d", ""])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
BOUNDS = st.integers(-(2**63), 2**63) | st.integers(-20, 20) | st.floats(-1e3, 1e3)
SIZES = st.integers(0, 4)
REFERENCES = st.sampled_from(
    ["#", "#/$defs/A", "#/$defs/a~1b~0c%25d", "#anchor", "#/$defs/A/items"]
)
ANY = st.just({})


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    return st.fixed_dictionaries({}, optional=fields)


def _typed(name: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    return _some(**fields).map(lambda schema: {"type": name, **schema})


def _object(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    return _typed(
        "object",
        properties=st.dictionaries(WORDS, inner, max_size=3),
        required=st.lists(WORDS, max_size=2, unique=True),
        additionalProperties=st.just(False) | inner,
        patternProperties=st.dictionaries(st.just("^z[0-9]$"), inner, max_size=1),
        minProperties=SIZES,
        maxProperties=SIZES,
    )


def _compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        _object(inner),
        _typed("array", items=inner, minItems=SIZES, maxItems=SIZES, prefixItems=several),
        _some(anyOf=several, type=st.sampled_from(["object", "integer", ["string", "null"]])),
        _some(allOf=several),
        _some(oneOf=several),
        _some(**{"$ref": REFERENCES, "maxLength": SIZES}),
    )


LEAVES = st.one_of(
    _typed("null"),
    _typed("boolean"),
    _typed("integer", minimum=BOUNDS, maximum=BOUNDS, multipleOf=st.integers(1, 12)),
    _typed("integer", exclusiveMinimum=BOUNDS, exclusiveMaximum=BOUNDS),
    _typed("number", minimum=BOUNDS, exclusiveMaximum=BOUNDS),
    _typed("string", minLength=SIZES, maxLength=SIZES),
    _typed("string", pattern=st.sampled_from(["^[a-c]{1,3}$", "b", "^(x|yz)?$"]), maxLength=SIZES),
    _typed("string", format=st.sampled_from(["date", "uuid", "ipv4", "time"])),
    st.fixed_dictionaries({"enum": st.lists(VALUES, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"const": VALUES}),
)
SCHEMAS = st.recursive(LEAVES, _compound, max_leaves=8)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """A schema of llguidance's keywords, with definitions."""
    definitions = {
        "A": {"items": draw(SCHEMAS), "type": "array", "maxItems": 2},
        "a/b~c%d": draw(SCHEMAS),
        "C": {"$anchor": "anchor", **draw(LEAVES)},
    }
    return {**draw(SCHEMAS), "$defs": definitions}


KEYWORDS = st.sampled_from(
    [
        "$ref",
        "$id",
        "$anchor",
        "$defs",
        "$schema",
        "$dynamicRef",
        "$recursiveRef",
        "definitions",
        "type",
        "enum",
        "const",
        "items",
        "prefixItems",
        "additionalItems",
        "minItems",
        "maxItems",
        "contains",
        "uniqueItems",
        "properties",
        "required",
        "patternProperties",
        "additionalProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "dependencies",
        "dependentRequired",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "if",
        "then",
        "else",
        "unevaluatedProperties",
        "nullable",
        "x-guidance",
        "title",
        "default",
        "examples",
        "contentEncoding",
    ]
)
ODD = st.one_of(
    SCALARS,
    REFERENCES,
    st.sampled_from(
        [
            "string",
            "object",
            "array",
            "integer",
            "zebra",
            "(",
            "[a-",
            "http://localhost:1/x",
            "date",
        ]
    ),
    st.floats(),
    st.sampled_from([10**19, -(10**300), 10**400, 1e-320, 5e300, 0, -1]),
)
ODD_SCHEMAS = st.recursive(
    ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=12,
)
