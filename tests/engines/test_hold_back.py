"""What is held back, against a search of the whole text, which is slow and plainly right."""

import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.text.hold_back import ANY_SPACE, HoldBack, Node
from nemotrt.engines.text.text_stream import TextStream
from nemotrt.engines.text.tokenizer import Tokenizer
from support.examples import up_to

TEXTS = st.text("abé", max_size=12)
POSITIONS = st.lists(st.integers(0, 30))
STOPS = st.lists(st.text("abé", min_size=1, max_size=5), max_size=6).map(tuple)


class Pieces(Tokenizer):
    """A tokenizer whose ids are places in a list of texts."""

    chat = DEFAULT

    def __init__(self, pieces: list[str]) -> None:
        self.eos_ids = ()
        self._pieces = pieces

    def decoder(self, **how: bool) -> Any:
        return self._pieces.__getitem__


def searched(pieces: list[str], stop: tuple[str, ...]) -> tuple[list[str], bool]:
    """Return what may be shown after each piece, and whether a stop string came, by search."""
    shown, held = [], ""
    for piece in pieces:
        held += piece
        found = [held.index(s) for s in stop if s in held]
        if found:
            return [*shown, held[: min(found)]], True
        ends = [size for s in stop for size in range(1, len(s)) if held.endswith(s[:size])]
        cut = len(held) - max(ends, default=0)
        shown.append(held[:cut])
        held = held[cut:]
    return [*shown, held], False


@settings(deadline=None, max_examples=up_to(500))
@given(st.lists(TEXTS, max_size=12), STOPS)
def test_pieces_are_shown_as_a_search_of_the_text_says(pieces, stop) -> None:
    stream = TextStream(Pieces(pieces), stop)
    shown = []
    for token in range(len(pieces)):
        shown.append(stream.push(token)[1])
        if stream.is_stopped:
            break
    if not stream.is_stopped:
        shown.append(stream.flush())
    assert (shown, stream.is_stopped) == searched(pieces, stop)
    assert stream.flush() == ""


@pytest.mark.parametrize("stop", [("a" * 4000,), tuple("a" * n + "b" for n in range(90))])
def test_each_character_is_looked_at_a_bounded_number_of_times(stop, monkeypatch) -> None:
    """Steps are counted, not timed: twice the text takes no more than twice the steps."""
    looks = 0

    class Counting(dict):
        def get(self, key: str, default: Any = None) -> Any:
            nonlocal looks
            looks += 1
            return super().get(key, default)

    matcher = HoldBack(stop)
    nodes, seen = [matcher._node], set()
    while nodes:
        node: Node = nodes.pop()
        if id(node) not in seen:
            seen.add(id(node))
            nodes += node.children.values()
            node.children = Counting(node.children)
    for _ in range(100):
        assert matcher.push("a" * 38 + "x")[1] is None
    assert looks <= 2 * 100 * 39


SPACES = st.sampled_from(["", " ", "\n", ANY_SPACE])
MARKS = st.lists(st.text("ab \n", min_size=1, max_size=5), max_size=4).map(tuple)


def brute(text: str, pushed: int, marks: tuple[str, ...], counts: bool) -> tuple[int, int | None]:
    """Return where the first mark that the last `pushed` characters complete begins and ends.

    Without one: where the longest end of the text begins that begins a mark.
    """
    size = len(text)
    ends = [
        (begin, begin + len(mark))
        for mark in marks
        for begin in range(size)
        if counts and text.startswith(mark, begin) and begin + len(mark) > size - pushed
    ]
    if ends:
        return min(ends)
    return next(
        n for n in range(size + 1) if any(m.startswith(text[n:]) for m in marks or [""])
    ), None


@settings(deadline=None, max_examples=up_to(500))
@given(st.lists(st.tuples(st.text("ab \n", max_size=9), st.booleans()), max_size=8), MARKS, SPACES)
def test_what_is_held_is_what_may_yet_be_a_mark(pieces, marks, space) -> None:
    """The whole text since the last mark is searched anew at each piece."""
    hold = HoldBack(marks, space)
    before, text, shown = "", "", ""  # white space before the last mark; the text since
    for piece, counts in pieces:
        position = 0
        hold = pickle.loads(pickle.dumps(hold))  # requests of large bodies change their process
        while True:
            text += piece[position:]
            begin, end = brute(text, len(piece) - position, marks, counts)
            passed, found = hold.push(piece, position, counts=counts)
            shown += passed
            assert shown == (before + text[:begin]).rstrip(space)
            assert found == (None if end is None else len(piece) - len(text) + end)
            if found is None:
                assert shown + hold.held == before + text
                break
            before, text, shown = (before + text[:begin])[len(shown) :], "", ""
            assert hold.held == before
            position = found
    held = hold.held
    assert hold.flush() == held and hold.flush() == ""


@settings(deadline=None)
@given(st.text("ab ", max_size=30), st.text("ab ", min_size=1, max_size=4), POSITIONS)
def test_one_mark_is_found_at_the_same_places_however_the_text_is_cut(text, mark, places) -> None:
    """The oracle is `str.split`."""
    hold, parts = HoldBack((mark,)), [""]
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    for piece in (text[a:b] for a, b in pairwise(edges)):
        end: int | None = 0
        while end is not None:
            passed, end = hold.push(piece, end)
            parts[-1] += passed
            if end is not None:
                parts.append("")
    parts[-1] += hold.flush()
    assert parts == text.split(mark)
