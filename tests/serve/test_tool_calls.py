import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import DEFAULT
from nemotrt.serve.front.tools.json_reader import MAX_DEPTH, Status, StringText, Value
from nemotrt.serve.front.tools.tool_calls import ToolCallParser
from support.cpu_time import cpu_seconds

OPEN, CLOSE = DEFAULT.calls.tags

LAX = settings(deadline=None)
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from([OPEN, CLOSE, f"{OPEN}[{{}}]{CLOSE}", '"}]', "\\", "\U0001f600", "</think>"]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
ARGUMENTS = st.dictionaries(st.text(), VALUES, max_size=3)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3)
PLAIN = st.text(alphabet=st.characters(exclude_characters="<", codec="utf-8")).map(str.strip)
POSITIONS = st.lists(st.integers(0, 400), max_size=30)
SPACES = st.text(" \n\t", max_size=2)
# Pieces of the format in any order: most of what they make is broken somewhere.
PIECES = st.lists(
    st.sampled_from(
        [
            *(OPEN, CLOSE, "[", "]", "{", "}", ",", ":", '"', "\\", "\\u", "d83d", "<", " ", "\n"),
            *(
                '"name"',
                '"arguments"',
                '"name": "a"',
                '"arguments": {',
                '{"b": 1}',
                "null",
                "1e999",
            ),
            *(
                '{"name": "a", "arguments": {}}',
                '"arguments": "{\\"x\\": 1}"',
                "true",
                "-",
                "</TOOL",
            ),
        ]
    ),
    max_size=24,
).map("".join)


def run(pieces):
    """Return (content, [(name, arguments)]) of what the parser makes of the pieces."""
    parser, content, calls = ToolCallParser(DEFAULT.calls), "", []
    outputs = [parser.push(piece) for piece in pieces] + [parser.flush()]
    for text, deltas in outputs:
        content += text
        for delta in deltas:
            if delta.name is not None:
                assert delta.index == len(calls) and delta.call_id
                calls.append([delta.name, ""])
            calls[delta.index][1] += delta.arguments
    return content, calls


def cut(text, positions):
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in positions)})
    return [text[a:b] for a, b in pairwise(places)]


def written(calls, as_string=False):
    items = [
        {"name": name, "arguments": json.dumps(arguments) if as_string else arguments}
        for name, arguments in calls
    ]
    return f"<TOOLCALL>{json.dumps(items, ensure_ascii=False)}</TOOLCALL>"


@st.composite
def variants(draw):
    """A block of calls as lenient as NVIDIA's parser takes it, with what json.loads makes of it."""
    calls = []
    for _ in range(draw(st.integers(1, 3))):
        entries = [("name", draw(NAMES))]
        if draw(st.booleans()):
            value = draw(st.one_of(ARGUMENTS, ARGUMENTS, ARGUMENTS.map(json.dumps), VALUES))
            entries.append(("arguments", value))
        names = ["id", "type", "extra"]
        entries += draw(st.lists(st.tuples(st.sampled_from(names), VALUES), max_size=2))
        calls.append(dict(draw(st.permutations(entries))))
    options = {
        "ensure_ascii": draw(st.booleans()),
        "indent": draw(st.sampled_from([None, None, 1])),
        "separators": draw(st.sampled_from([None, (",", ":"), (" ,\n", "\t: ")])),
    }
    body = json.dumps(calls, **options).strip()
    opened = draw(st.booleans())
    body = body if opened else body[1:].lstrip()
    body = body if draw(st.booleans()) else body[:-1].rstrip()
    space = [draw(SPACES) for _ in range(4)]
    text = f"{space[0]}{OPEN}{space[1]}{body}{space[2]}{CLOSE}{space[3]}"
    return text, [(call["name"], call.get("arguments")) for call in calls]


def as_openai(arguments):
    """OpenAI's arguments are text: a string's own text, {} for none, else JSON."""
    if arguments is None or arguments == "":
        return "{}"
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def same(found, arguments):
    wanted = as_openai(arguments)
    return found == wanted or json.loads(found) == json.loads(wanted)


@LAX
@given(CALLS, PLAIN, st.lists(st.integers(0, 400), max_size=30), st.booleans())
def test_any_calls_cut_anywhere_come_out_whole(calls, before, positions, as_string) -> None:
    content, found = run(cut(before + written(calls, as_string), positions))
    assert content == before
    assert [(name, json.loads(text)) for name, text in found] == calls


@LAX
@given(variants(), PLAIN, PLAIN, POSITIONS)
def test_whatever_nvidias_parser_takes_is_taken(variant, before, after, positions) -> None:
    text, calls = variant
    content, found = run(cut(before + text + after, positions))
    assert content == before + (text[text.rindex(">") + 1 :] + after if after else "")
    assert [name for name, _ in found] == [name for name, _ in calls]
    for (_, arguments), (_, wanted) in zip(found, calls, strict=True):
        assert same(arguments, wanted)


def check_cuts(text, positions) -> None:
    """Streamed equals whole, and what no call was found in comes back as it is."""
    whole = run([text])
    assert run(cut(text, positions)) == whole
    assert run(list(text)) == whole
    content, calls = whole
    if not calls:
        assert content == text
    content.encode()
    json.dumps(calls, ensure_ascii=False).encode()


@LAX
@given(st.one_of(PIECES, st.text(alphabet='<TOOLCAL>[]{}",:name \\/arguments\n')), POSITIONS)
def test_the_cut_makes_no_difference_and_nothing_is_lost(text, positions) -> None:
    check_cuts(text, positions)


@LAX
@given(variants(), st.data(), POSITIONS)
def test_calls_broken_anywhere(variant, data, positions) -> None:
    """A character goes, comes or changes, or the text ends early."""
    text = variant[0]
    place = data.draw(st.integers(0, len(text) - 1))
    change = data.draw(st.sampled_from(["", '"', "}", "]", "<", "\\", "x", " ", CLOSE, OPEN]))
    size = data.draw(st.integers(0, 2))
    check_cuts(text[:place] + change + text[place + size :], positions)
    check_cuts(text[:place], positions)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.one_of(PIECES, variants().map(lambda variant: variant[0]), st.text()), POSITIONS)
def test_ten_thousand_texts_cut_at_random(text, positions) -> None:
    check_cuts(text, positions)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(variants(), st.data(), POSITIONS)
def test_ten_thousand_broken_calls(variant, data, positions) -> None:
    text = variant[0]
    place = data.draw(st.integers(0, len(text) - 1))
    change = data.draw(st.one_of(PIECES, st.text(max_size=3)))
    check_cuts(text[:place] + change + text[place + data.draw(st.integers(0, 3)) :], positions)


CASES = [
    ("one object without a list", '{"name": "a", "arguments": {"x": 1}}', [["a", '{"x": 1}']], ""),
    ("no closing bracket", '[{"name": "a", "arguments": {}}', [["a", "{}"]], ""),
    ("no opening bracket", '{"name": "a", "arguments": {}}]', [["a", "{}"]], ""),
    ("keys in another order", '[{"arguments": {"x": 1}, "name": "a"}]', [["a", '{"x": 1}']], ""),
    ("more keys", '[{"id": 7, "name": "a", "t": ["]"], "arguments": {}, "z": "}"}]', None, ""),
    ("no arguments", '[{"name": "a"}]', [["a", "{}"]], ""),
    ("null", '[{"name": "a", "arguments": null}]', [["a", "{}"]], ""),
    ("null first", '[{"arguments": null, "name": "a"}]', [["a", "{}"]], ""),
    ("an empty string", '[{"name": "a", "arguments": ""}]', [["a", "{}"]], ""),
    ("a list", '[{"name": "a", "arguments": [1, "]"]}]', [["a", '[1, "]"]']], ""),
    ("a number", '[{"name": "a", "arguments": 1e999 }]', [["a", "1e999"]], ""),
    ("a word", '[{"name": "a", "arguments": true}]', [["a", "true"]], ""),
    (
        "a text",
        '[{"name": "a", "arguments": "{\\"x\\": \\"\\u00e9\\"}"}]',
        [["a", '{"x": "é"}']],
        "",
    ),
    ("big numbers stay", '[{"name": "a", "arguments": {"x": 1e999}}]', [["a", '{"x": 1e999}']], ""),
    ("keys twice", '[{"name": "a", "arguments": {}, "name": "b", "arguments": 5}]', None, ""),
    ("an escaped key", '[{"n\\u0061me": "a", "arguments": {}}]', [["a", "{}"]], ""),
    ("a surrogate pair", '[{"name": "\\ud83d\\ude00"}]', [["\U0001f600", "{}"]], ""),
    ("half a pair", '[{"name": "\\ud83d!\\ude00"}]', [["\ufffd!\ufffd", "{}"]], ""),
    ("a tag within", f'[{{"name": "a", "arguments": {{"x": "{CLOSE}{OPEN}"}}}}]', None, ""),
    ("a brace is missing", '[{"name": "a", "arguments": {"x": 1}]', [["a", '{"x": 1}']], ""),
    ("two are missing", '[{"name": "a", "arguments": {"x": 1]', [["a", '{"x": 1']], ""),
    ("a brace too much", '[{"name": "a", "arguments": {}}}]', [["a", "{}"]], ""),
    ("no comma", '[{"name": "a"} {"name": "b"}]', [["a", "{}"], ["b", "{}"]], ""),
    ("two lists", '[{"name": "a"}][{"name": "b"}]', [["a", "{}"], ["b", "{}"]], ""),
    ("junk behind a call", '[{"name": "a"}, oops]', [["a", "{}"]], f", oops]{CLOSE}"),
]


@pytest.mark.parametrize(
    ("body", "calls", "content"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_forms_of_a_call(body, calls, content) -> None:
    found = run([f" {OPEN}{body}{CLOSE}\n"])
    if calls is None:  # as json.loads reads it, but for the first of two keys
        calls = [["a", json.dumps(json.loads(body)[0]["arguments"])]]
        calls = [["a", "{}"]] if '"b"' in body else calls
    assert found == (content and content + "\n", calls)
    check_cuts(f" {OPEN}{body}{CLOSE}\n", [])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "[oops]",
        "[1]",
        '["a"]',
        "[{}]",
        '[{"name": 5, "arguments": {}}]',
        '[{"name": "", "arguments": {}}]',
        '[{"name": null}]',
        '[{"arguments": {}}]',
        '[{"name": "a", "arguments": oops}]',
        '[{"name": "a", "arguments": NaN}]',
        '[{"name": "a" "arguments": {}}]',
        "[{'name': 'a'}]",
        '[{"name": "a", "extra": ' + "[" * (MAX_DEPTH + 1),
    ],
)
def test_what_is_no_call_is_content_to_the_letter(body) -> None:
    for text in (f" a {OPEN}{body}{CLOSE} b\n", f" a {OPEN} {body}"):
        assert run([text]) == (text, [])
        check_cuts(text, [])


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"a {written([('f', {})])} b ", "a b ", 1),
        (f"a {written([('f', {})])}\n\n", "a", 1),
        (f"{written([('f', {})])}\n{written([('g', {})])}\n", "", 2),
        (f"{written([('f', {})])}\n<TOOLCALL>[]", "\n<TOOLCALL>[]", 1),
        (f"x\n<TOOLCALL>[oops\n{written([('f', {})])}", "x\n<TOOLCALL>[oops", 1),
        (f"<TOOLCALL>\n{written([('f', {})])}", "<TOOLCALL>", 1),
        ('<TOOLCALL>[{"name": "a", "arguments": {}}] and so on', " and so on", 1),
        ('<TOOLCALL>[{"name": "a", "arguments": {}}]</TOOLC', "", 1),
        ('<TOOLCALL>[{"name": "a", "arguments": {}}, {"na', ', {"na', 1),
        ('<TOOLCALL>[{"name": "a", "arguments": {"x": [1, "', "", 1),
        ("a < b <TOOLCALLS> <<TOOLCALL", "a < b <TOOLCALLS> <<TOOLCALL", 0),
    ],
)
def test_space_and_text_around_calls(text, content, calls) -> None:
    found, made = run([text])
    assert (found, len(made)) == (content, calls)
    check_cuts(text, [])


def test_the_name_goes_out_before_the_arguments() -> None:
    parser = ToolCallParser(DEFAULT.calls)
    _, [head, start] = parser.push('<TOOLCALL>[{"name": "tip", "arguments": {"bi')
    assert (head.name, start.name, start.arguments) == ("tip", None, '{"bi')
    _, [more] = parser.push("ll")
    assert more.arguments == "ll"
    parser = ToolCallParser(DEFAULT.calls)
    assert parser.push('<TOOLCALL>[{"arguments": {"a": 1}, "na') == ("", [])
    _, [head, whole] = parser.push('me": "tip"')
    assert (head.name, whole.arguments) == ("tip", '{"a": 1}')


def test_arguments_in_a_string_stream_decoded_and_keep_what_was_cut() -> None:
    parser = ToolCallParser(DEFAULT.calls)
    _, [head, start] = parser.push('<TOOLCALL>[{"name": "tip", "arguments": "{\\"a\\": \\"\\u00')
    assert (head.name, start.arguments) == ("tip", '{"a": "')
    assert parser.push("e9")[1][0].arguments == "é"
    parser.push("\\u00")
    assert parser.flush()[1][0].arguments == "\\u00"


def test_the_closing_tag_may_be_missing() -> None:
    assert run(['<TOOLCALL>[{"name": "a", "arguments": {}}]']) == ("", [["a", "{}"]])


def test_calls_are_counted_as_they_end() -> None:
    parser, counts = ToolCallParser(DEFAULT.calls), []
    for character in '<TOOLCALL>[{"name": "a", "arguments": {}}, {"name": "b"}]':
        parser.push(character)
        counts.append(parser.num_calls)
    assert counts == sorted(counts) and set(counts) == {0, 1, 2}


@LAX
@given(VALUES, st.sampled_from([",", "}", "]", " ", "\n"]), st.booleans())
def test_a_value_ends_where_json_says(value, after, is_ascii) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    for pieces in ([text + after], [*text, after]):
        reader, read = Value(), 0
        for piece in pieces:
            read += reader.push(piece, 0)
            if reader.status is not Status.OPEN:
                break
        assert (reader.status, read) == (Status.COMPLETE, len(text))


@LAX
@given(st.text(), POSITIONS, st.booleans())
def test_a_string_says_what_json_says(text, positions, is_ascii) -> None:
    reader = StringText()
    inside = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
    assert "".join(map(reader.push, cut(inside, positions))) + reader.flush() == text


@pytest.mark.parametrize(
    "unit",
    [
        *("<", "<TOOL", "<TOOLCALL>", "<TOOLCALL>[", " ", '<TOOLCALL>{"a', '"a": 1, ', "\\\\", "["),
        *("\\ud83d", '{"name": "a"}, ', '{"name": "a", "arguments": {"x": 1}}'),
    ],
)
@pytest.mark.parametrize("start", ["", "<TOOLCALL>[{", '<TOOLCALL>[{"name": "a', "<TOOLCALL>["])
def test_time_is_linear_in_the_text(unit, start) -> None:
    """Eight times the text may take no more than 30 times as long, cut into small pieces."""

    def seconds(size):
        text = start + unit * (size // len(unit))
        return cpu_seconds(lambda: run([text[at : at + 4] for at in range(0, len(text), 4)]))

    assert seconds(64_000) < max(30 * seconds(8_000), 1)
