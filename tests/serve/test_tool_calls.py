import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nemotrt.serve.front.tool_calls import ToolCallParser

NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text())
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
ARGUMENTS = st.dictionaries(st.text(), VALUES, max_size=3)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3)
PLAIN = st.text(alphabet=st.characters(exclude_characters="<", codec="utf-8")).map(str.strip)


def run(pieces):
    """Return (content, [(name, arguments)]) of what the parser makes of the pieces."""
    parser, content, calls = ToolCallParser(), "", []
    outputs = [parser.push(piece) for piece in pieces] + [parser.flush()]
    for text, deltas in outputs:
        content += text
        for delta in deltas:
            if delta.name is not None:
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


@given(CALLS, PLAIN, st.lists(st.integers(0, 400), max_size=30), st.booleans())
def test_any_calls_cut_anywhere_come_out_whole(calls, before, positions, as_string) -> None:
    content, found = run(cut(before + written(calls, as_string), positions))
    assert content == before
    assert [(name, json.loads(text)) for name, text in found] == calls


@given(st.text(alphabet='<TOOLCAL>[]{}",:name \\/arguments\n'), st.lists(st.integers(0, 400)))
def test_nothing_is_lost_of_what_is_no_call(text, positions) -> None:
    content, found = run(cut(text, positions))
    if not found:
        assert "".join(content.split()) == "".join(text.split())


def test_the_name_goes_out_before_the_arguments() -> None:
    parser = ToolCallParser()
    _, [head, start] = parser.push('<TOOLCALL>[{"name": "tip", "arguments": {"bi')
    assert (head.name, start.name, start.arguments) == ("tip", None, '{"bi')
    _, [more] = parser.push("ll")
    assert more.arguments == "ll"


def test_the_closing_tag_may_be_missing() -> None:
    assert run(['<TOOLCALL>[{"name": "a", "arguments": {}}]']) == ("", [["a", "{}"]])
