"""Tool calls as elements: what each value is, where it ends, and what comes of broken ones."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import NEMOTRON_3
from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.serve.front.tools.tool_calls import ToolCallParser
from support.call_forms import is_tellable, schemas, written
from support.cpu_time import cpu_seconds
from support.foreign_family import NEMOTRON_3_TEMPLATE

LAX = settings(deadline=None)
OPEN, CLOSE = NEMOTRON_3.calls.tags
HOSTILE = [
    *(OPEN, CLOSE, "</think>", "<function=f>", "</function>", "<parameter=a>", "</parameter>"),
    *("</param", "</parameter", "<", "\n", "\n\n", " ", ">", "=", '"', "\\", "{", "}", "null"),
    *("東京の天気は", "\U0001f600", "a", "5", "True", "None", "<parameter=", "<function="),
]
NAMES = st.text(st.characters(exclude_characters="<>\n", codec="utf-8"), min_size=1, max_size=8)
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(HOSTILE), max_size=8).map("".join))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)
VALUES = st.recursive(
    LEAVES.filter(lambda v: v not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
CALLS = st.lists(
    st.tuples(NAMES.map(str.strip).filter(bool), st.dictionaries(NAMES, VALUES, max_size=3)),
    min_size=1,
    max_size=3,
)
POSITIONS = st.lists(st.integers(0, 400), max_size=30)
PIECES = st.lists(st.sampled_from(HOSTILE), max_size=24).map("".join)
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "array"}},
}
KNOWN: dict[str, Any] = {"f": SCHEMA, "now": None}


def run(pieces: list[str], functions: dict[str, Any] | None = None) -> tuple[str, list[list[str]]]:
    """Return (content, [[name, arguments]]) of what the parser makes of the pieces."""
    parser, content = ToolCallParser(NEMOTRON_3.calls, None, functions or KNOWN), ""
    calls: list[list[str]] = []
    for text, deltas in [*map(parser.push, pieces), parser.flush()]:
        content += text
        for delta in deltas:
            if delta.name is not None:
                assert delta.index == len(calls) and delta.call_id
                calls.append([delta.name, ""])
            calls[delta.index][1] += delta.arguments
    return content, calls


def cut(text: str, positions: list[int]) -> list[str]:
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in positions)})
    return [text[a:b] for a, b in pairwise(places)]


def block(body: str) -> str:
    return f"{OPEN}\n<function=f>\n{body}</function>\n{CLOSE}"


def value(text: str, schema: Any, **rest: Any) -> Any:
    """Return what comes of an argument's text."""
    functions = {"f": {"type": "object", "properties": {"x": schema}, **rest}}
    said = block(f"<parameter=x>\n{text}\n</parameter>\n")
    content, [[_, arguments]] = run([said], functions)
    assert (content, [["f", arguments]]) == run(list(said), functions)
    assert content == ""
    return json.loads(arguments)["x"]


@LAX
@given(CALLS, POSITIONS)
@example([("f", {"a": ["</function></tool_call>", '"</parameter></function>\\']})], [])
def test_any_calls_cut_anywhere_come_out_whole(calls, positions) -> None:
    assume(is_tellable(NEMOTRON_3, calls))
    text, known = written(NEMOTRON_3, calls), schemas(calls)
    content, found = run(cut(text, positions), known)
    assert content == ""
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


def check_cuts(text: str, positions: list[int]) -> None:
    """Streamed equals whole, and what no call was found in comes back as it is."""
    content, calls = whole = run([text])
    assert run(cut(text, positions)) == run(list(text)) == whole
    assert calls or content == text
    for _, arguments in calls[:-1]:  # the last one may have broken off
        assert isinstance(json.loads(arguments), dict)


@LAX
@given(PIECES, st.booleans(), POSITIONS)
def test_the_cut_makes_no_difference_and_nothing_is_lost(text, is_call, positions) -> None:
    check_cuts(text, positions)
    check_cuts(block(text if is_call else f"<parameter=a>\n{text}\n</parameter>\n"), positions)


@LAX
@given(CALLS, st.data(), POSITIONS)
def test_calls_broken_anywhere(calls, data, positions) -> None:
    text = written(NEMOTRON_3, calls)
    place = data.draw(st.integers(0, len(text) - 1))
    change = data.draw(st.sampled_from(["", *HOSTILE]))
    check_cuts(text[:place] + change + text[place + data.draw(st.integers(0, 2)) :], positions)
    check_cuts(text[:place], positions)


NULLABLE = {"anyOf": [{"type": "string"}, {"type": "null"}]}
COLOUR = {"$defs": {"Colour": {"enum": ["red", "5"], "type": "string"}}}
LOOP = {"$defs": {"L": {"anyOf": [{"$ref": "#/$defs/L"}, {"type": "integer"}]}}}
TYPED = [
    ("5", {"type": "string"}, "5"),
    ("null", {"type": "string"}, "null"),
    (' "a" ', {"type": "string"}, ' "a" '),
    ("\n a\n", {"type": "string"}, "\n a\n"),
    ("", {"type": "string"}, ""),
    ("5", {"type": "integer"}, 5),
    ("-1.5e3", {"type": "number"}, -1500.0),
    (" 5 ", {"type": "integer"}, 5),
    ("five", {"type": "integer"}, "five"),
    ("007", {"type": "integer"}, "007"),
    ("NaN", {"type": "number"}, "NaN"),
    ("True", {"type": "boolean"}, True),
    ("false", {"type": "boolean"}, False),
    ("None", {"type": "null"}, None),
    ('{"a": [1,\n 2]}', {"type": "object"}, {"a": [1, 2]}),
    ("{'a': 1}", {"type": "object"}, "{'a': 1}"),
    ('["</parameter>", "</function>"]', {"type": "array"}, ["</parameter>", "</function>"]),
    (
        '["</function></tool_call>\\"</parameter></function>"]',
        {},
        ['</function></tool_call>"</parameter></function>'],
    ),
    ('{"\\\\": "\\\\</parameter><parameter=x>"}', {}, {"\\": "\\</parameter><parameter=x>"}),
    ('["half', {"type": "array"}, '["half'),
    ("null", NULLABLE, None),
    ("None", NULLABLE, None),
    ("nullable", NULLABLE, "nullable"),
    ("nul", NULLABLE, "nul"),
    ("", NULLABLE, ""),
    ("null", {"type": ["string", "null"]}, None),
    ("5", {"type": ["string", "integer"]}, 5),
    ("5.5", {"type": ["string", "integer"]}, "5.5"),
    ("[5]", {"type": ["string", "integer"]}, "[5]"),
    ("5", {"enum": ["5", "6"]}, "5"),
    ("5", {"const": 5}, 5),
    ("5", {"oneOf": [{"type": "string"}]}, "5"),
    ("5", {"allOf": [{"type": ["string", "integer"]}, {"type": "integer"}]}, 5),
    ("5", {}, 5),
    ("five", True, "five"),
    ('"five"', {}, '"five"'),
    ('{"a": 1}', {}, {"a": 1}),
]


@pytest.mark.parametrize(("text", "schema", "expected"), TYPED)
def test_a_value_is_what_its_schema_lets_it_be(text, schema, expected) -> None:
    found = value(text, schema)
    assert found == expected and type(found) is type(expected)


def test_references_are_followed() -> None:
    assert value("5", {"$ref": "#/$defs/Colour"}, **COLOUR) == "5"
    assert value("5", {"allOf": [{"$ref": "#/$defs/Colour"}], "default": "red"}, **COLOUR) == "5"
    assert value("5", {"$ref": "#/$defs/L"}, **LOOP) == 5
    assert value("5", {"$ref": "#/$defs/no"}, **COLOUR) == 5
    assert value("5", {"$ref": 7}) == 5
    whole = {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"x": {"type": "string"}}}}}
    _, [[_, arguments]] = run([block("<parameter=x>\n5\n</parameter>\n")], {"f": whole})
    assert json.loads(arguments) == {"x": "5"}


def test_a_schema_that_grows_by_its_references_is_read_in_time() -> None:
    defs = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 4} for i in range(30)}
    schema = {"$ref": "#/$defs/d0"}
    assert value("5", schema, **{"$defs": defs | {"d30": {"type": "string"}}}) == "5"


def test_digits_stay_and_a_deep_value_is_a_string() -> None:
    digits = "9" * 5000
    _, [[_, arguments]] = run([block(f"<parameter=b>\n{digits}\n</parameter>\n")])
    assert arguments == f'{{"b": {digits}}}'
    assert isinstance(value("[" * 100_000, {"type": "array"}), str)


FORMS = [
    ("no arguments", "", "{}"),
    ("in one line", "<parameter=a>x</parameter><parameter=b>5</parameter>", '{"a": "x", "b": 5}'),
    ("more space", " \n<parameter= a >\nx\n</parameter>\n \t\n", '{"a": "x"}'),
    ("twice", "<parameter=b>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>\n", '{"b": 1}'),
    ("no such argument", "<parameter=z>\n1\n</parameter>\n", '{"z": 1}'),
    ("not closed before the next", "<parameter=a>\nx\n<parameter=b>\n5\n</parameter>\n", None),
    ("not closed before the end", "<parameter=b>\n5\n<parameter=a>\nx\n", None),
    (
        "a name that is no argument's",
        "<parameter=a>\n<parameter=z>\n</parameter>\n",
        "<parameter=z>",
    ),
    ("a name that came", "<parameter=a>\n1\n<parameter=a>\n</parameter>\n", "1\n<parameter=a>"),
    ("within a line", "<parameter=a>\n1 <parameter=b>\n</parameter>\n", "1 <parameter=b>"),
    ("a closing tag in a text", "<parameter=a>\n</parameter>x\n</parameter>\n", "</parameter>x"),
    ("an end in a text", "<parameter=a>\n</function>x\n</parameter>\n", "</function>x"),
    ("another end in it", f"<parameter=a>\n{CLOSE}\n</parameter>\n", CLOSE),
]


@pytest.mark.parametrize(("body", "expected"), [f[1:] for f in FORMS], ids=[f[0] for f in FORMS])
def test_forms_of_a_call(body, expected) -> None:
    text = block(body)
    content, [[name, arguments]] = run([text])
    assert (content, name) == ("", "f")
    wanted = {"a": "x", "b": 5}
    if expected is not None:
        wanted = json.loads(expected) if expected.startswith("{") else {"a": expected}
    assert json.loads(arguments) == wanted
    check_cuts(text, [])


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"a {block('')} b ", "a b ", ["{}"]),
        (f"a {block('')}\n\n", "a", ["{}"]),
        (f"{block('')}\n{block('')}\n", "", ["{}", "{}"]),
        (f"{OPEN}<function=f></function><function=now></function>{CLOSE}", "", ["{}", "{}"]),
        (f"{OPEN}\n<function=f>\n{CLOSE} b", " b", ["{}"]),
        (f"{OPEN}<function=f>\n<parameter=b>5</parameter>\n{CLOSE}\n", "", ['{"b": 5}']),
        (f"{OPEN}<function=f>junk</function>{CLOSE}", f"junk</function>{CLOSE}", ["{}"]),
        (f"{OPEN}<function=f><parax</function>", "<parax</function>", ["{}"]),
        (f"{OPEN}<function=f><parameter=>x", "<parameter=>x", ["{}"]),
        (f"{OPEN}<function=f></function>\n</tool", "", ["{}"]),
        (f"{OPEN}<function=f></function>\n<func", "\n<func", ["{}"]),
        (f"{OPEN}<function=f><parameter=a>\nhalf\n</para", "", ['{"a": "half\\n</para']),
        (f"{OPEN}<function=f><parameter=a>\nx\n</parameter>\n", "", ['{"a": "x"']),
        (f"{OPEN}<function=f><parameter=b>\n12", "", ['{"b": 12']),
        (f"{OPEN}<function=f>\n", "", [""]),
    ],
)
def test_text_around_calls_and_calls_that_break_off(text, content, calls) -> None:
    found, made = run([text])
    assert (found, [arguments for _, arguments in made]) == (content, calls)
    check_cuts(text, [])


@pytest.mark.parametrize(
    "body",
    [
        *("", "<function=", "<function=>", "<function=f", "<function=\n>", "<function=a<b>"),
        *('{"name": "f"}', "[<function=f></function>]", "</function>", "<parameter=a>", "x"),
        "<function=" + "x" * 1025 + ">",
    ],
)
def test_what_is_no_call_is_content_to_the_letter(body) -> None:
    for text in (f" a {OPEN}{body}{CLOSE} b\n", f" a {OPEN} {body}"):
        assert run([text]) == (text, [])
        check_cuts(text, [])


def test_strings_go_out_as_they_come_and_others_once_they_have_ended() -> None:
    parser = ToolCallParser(NEMOTRON_3.calls, None, KNOWN)
    assert parser.push(f"{OPEN}\n<function=f") == ("", [])
    [head, start] = parser.push(">\n<parameter=a>")[1]
    assert (head.name, head.arguments, start.arguments) == ("f", "", '{"a": ')

    def said(text: str) -> str:
        return "".join(delta.arguments for delta in parser.push(text)[1])

    assert said("\n東") == '"東'
    assert said('京"') == '京\\"'
    assert said("\n") == said("</param") == ""  # may belong to the form
    assert said("x") == "\\n</paramx"
    assert said("\n</parameter>\n") == ""
    assert said("<parameter=b>") == '", "b": '
    assert said("\n12") == said("3\n") == ""
    assert said("</parameter>\n</function>") == "123}"
    assert parser.num_calls == 1


def test_what_the_template_writes_is_read() -> None:
    template = ChatTemplate(NEMOTRON_3_TEMPLATE)
    assert template.chat is NEMOTRON_3
    calls = [("f", {"a": "x\n<b> & 東京", "b": 7, "n": None, "t": True, "l": [1, {"k": "v"}]})]
    held = [{"function": {"name": name, "arguments": value}} for name, value in calls]
    turns = [{"role": "user", "content": "Go."}, {"role": "assistant", "tool_calls": held}]
    for content in ("", "Well."):
        turns[1]["content"] = content
        said = template.render(turns, add_generation_prompt=False)
        said = said.rpartition("<think></think>")[2].removesuffix("<|im_end|>\n")
        found, made = run(list(said), schemas(calls))
        assert (found, [(name, json.loads(text)) for name, text in made]) == (content, calls)
    assert "<think>" not in template.render(turns[:1], add_generation_prompt=False)


@pytest.mark.parametrize(
    "unit",
    [
        *("<", "</para", "</parameter>", "</parameter>\n", "\n", " ", "<parameter=b>", "\n<p"),
        *("</function>", "<parameter=c>[", "x", f"<parameter=a>\n{CLOSE}</parameter>\n"),
    ],
)
@pytest.mark.parametrize(
    "start",
    [
        "<parameter=a>",
        pytest.param("<parameter=c>\n[", marks=pytest.mark.slow),
        pytest.param("<parameter=a></parameter>", marks=pytest.mark.slow),
    ],
)
def test_time_is_linear_in_the_text(unit, start) -> None:
    """Eight times the text may take no more than 30 times as long, cut into small pieces."""

    def seconds(size: int) -> float:
        text = f"{OPEN}<function=f>{start}" + unit * (size // len(unit))
        pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
        return cpu_seconds(lambda: run(pieces))

    assert seconds(64_000) < max(30 * seconds(8_000), 1)
