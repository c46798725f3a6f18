from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.serve.front.reasoning import ReasoningSplitter

TEXT = st.text(alphabet="ab<>/think \n")


def run(pieces, *, is_open):
    splitter = ReasoningSplitter(is_open=is_open)
    parts = [splitter.push(piece) for piece in pieces] + [splitter.flush()]
    return "".join(p.reasoning for p in parts), "".join(p.content for p in parts)


@pytest.mark.parametrize(
    ("text", "is_open", "expected"),
    [
        ("a\nb\n</think>\n\nc\n", True, ("a\nb", "c\n")),
        ("a</think>b</think>", True, ("a", "b</think>")),
        ("never closed", True, ("never closed", "")),
        ("</think>c", True, ("", "c")),
        ("plain", False, ("", "plain")),
        ("\nplain", False, ("", "\nplain")),
        ("<think>\na</think>c", False, ("a", "c")),
        ("<thin", False, ("", "<thin")),
    ],
)
def test_split(text, is_open, expected) -> None:
    assert run([text], is_open=is_open) == expected
    assert run(list(text), is_open=is_open) == expected


@given(TEXT, st.lists(st.integers(0, 60)), st.booleans())
def test_the_cuts_do_not_matter(text, positions, is_open) -> None:
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in positions)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert run(pieces, is_open=is_open) == run([text], is_open=is_open)
