"""The stop matcher against a search of the whole text, which is slow and plainly right."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.text.hold_back import HoldBack, Node
from nemotrt.engines.text.text_stream import TextStream
from nemotrt.engines.text.tokenizer import Tokenizer

TEXTS = st.text("abé", max_size=12)
STOPS = st.lists(st.text("abé", min_size=1, max_size=5), max_size=6).map(tuple)


class Pieces(Tokenizer):
    """A tokenizer whose ids are places in a list of texts."""

    chat = DEFAULT

    def __init__(self, pieces: list[str]) -> None:
        self.eos_ids = ()
        self._pieces = pieces

    def decoder(self) -> Any:
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


@settings(deadline=None, max_examples=500)
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
