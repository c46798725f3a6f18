"""Traces: where a prompt leaves them, and the reader that follows the text."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.text.reasoning import Trace, TraceCounter, TraceReader, trace_of

TEXT = st.text(alphabet="ab<>/think \n")


def run(pieces, *, is_open):
    splitter = TraceReader(DEFAULT, Trace.OPEN if is_open else Trace.BEFORE)
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


@settings(deadline=None)
@given(TEXT, st.lists(st.integers(0, 60)), st.booleans())
def test_the_cuts_do_not_matter(text, positions, is_open) -> None:
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in positions)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert run(pieces, is_open=is_open) == run([text], is_open=is_open)


@settings(deadline=None)
@given(TEXT, st.lists(st.integers(0, 60)), st.sampled_from(Trace))
def test_nothing_is_lost_and_the_content_comes_last(text, positions, trace) -> None:
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in positions)})
    reader = TraceReader(DEFAULT, trace)
    parts = [reader.push(text[a:b]) for a, b in pairwise(places)] + [reader.flush()]
    written = "".join(part.outside + part.content for part in parts)
    assert written == text
    content = "".join(part.content for part in parts)
    assert written.endswith(content)
    reasoning = "".join(part.reasoning for part in parts)
    assert reasoning in "".join(part.outside for part in parts)


@settings(deadline=None)
@given(
    st.text("ab\n <", max_size=8),
    st.text("\n", max_size=3),
    st.text("ab\n</think>", max_size=12),
    st.booleans(),
)
def test_the_answer_is_what_follows_the_tag_and_its_newlines(trace, gap, answer, opens) -> None:
    """The oracle is how the text was put together."""
    answer = answer.lstrip("\n")
    text = f"<think>{trace}</think>{gap}{answer}" if opens else f"{trace}</think>{gap}{answer}"
    reader = TraceReader(DEFAULT, Trace.BEFORE if opens else Trace.OPEN)
    parts = [reader.push(character) for character in text] + [reader.flush()]
    assert "".join(part.content for part in parts) == answer
    assert "".join(part.reasoning for part in parts) == trace.strip("\n")
    assert reader.trace is Trace.CLOSED


@pytest.mark.parametrize("gap", ["", "\n", "\n\n"])
def test_newlines_after_a_tag_at_the_prompts_end_belong_to_it(gap) -> None:
    reader = TraceReader(DEFAULT, Trace.ENDED)
    parts = [reader.push(character) for character in f"{gap}a\nb<think>"] + [reader.flush()]
    assert "".join(part.content for part in parts) == "a\nb<think>"


def test_a_closed_text_never_opens() -> None:
    reader = TraceReader(DEFAULT, Trace.CLOSED)
    text = "<think>a</think>b"
    assert "".join(reader.push(character).content for character in text) == text


HEADER = "<A>"


@pytest.mark.parametrize(
    ("prompt", "header", "expected"),
    [
        ("<U>hi<A>", HEADER, Trace.BEFORE),
        ("<U>hi<A>\n", HEADER, Trace.BEFORE),
        ("<U>hi<A><think>\n", HEADER, Trace.OPEN),
        ("<U>hi<A><think>\nlong ago\n\nit was", HEADER, Trace.OPEN),
        ("<U>hi<A><think></think>", HEADER, Trace.ENDED),
        ("<U>hi<A><think>\n\n</think>\n\n", HEADER, Trace.ENDED),
        ("<U>hi<A><think>a</think>The answer", HEADER, Trace.CLOSED),
        ("<U>hi<A><think>a</think>b\n<think>c", HEADER, Trace.OPEN),
        ("<U>hi<A><think></think>The <think> tag", HEADER, Trace.CLOSED),  # a word of an answer
        ("<U>hi<A><think>\nof <think> they say", HEADER, Trace.OPEN),  # a word of a trace
        ("<U>hi<A>The answer", HEADER, Trace.CLOSED),  # begun without a trace
        ("<U>what is <think>?<A>", HEADER, Trace.BEFORE),  # a user's words
        ("<U>what is <think>?<A>Well", HEADER, Trace.CLOSED),
        ("<U>what is </think>?<A><think>", HEADER, Trace.OPEN),
        ("<A><think>a</think>b<U>more<A>", HEADER, Trace.BEFORE),  # an earlier turn
        ("once upon a time", HEADER, Trace.BEFORE),  # no turn: one text
        ("Q: 1+1?\n<think>hm", HEADER, Trace.OPEN),
        ("Q: 1+1?\n<think>hm", "", Trace.OPEN),
        ("Q: 1+1? A: <think>", "", Trace.OPEN),
        ("Explain the <think> tag.", "", Trace.BEFORE),
        ("Q: 1+1?\n<think>hm</think>", "", Trace.ENDED),
        ("Q: 1+1?\n<think>hm</think>2", "", Trace.CLOSED),
        ("", "", Trace.BEFORE),
    ],
)
def test_where_a_prompt_leaves_the_trace(prompt, header, expected) -> None:
    assert trace_of(DEFAULT, prompt, header) is expected


@given(TEXT, TEXT, st.lists(st.integers(0, 80)), st.sampled_from(Trace))
def test_the_tokens_of_a_trace_are_those_up_to_the_end_of_its_closing_tag(
    thought, rest, positions, trace
) -> None:
    text = f"{thought}</think>{rest}"
    is_own = trace is Trace.BEFORE and text.lstrip().startswith("<think>")
    end = text.index("</think>") + len("</think>") if trace is Trace.OPEN or is_own else 0
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in positions)})
    counter = TraceCounter(DEFAULT, trace)
    for a, b in pairwise(places):
        counter.push(text[a:b])
    assert counter.num_tokens == sum(a < end for a in places[:-1])


def test_a_trace_without_an_end_counts_whole_and_white_space_is_none() -> None:
    for trace, expected in ((Trace.OPEN, 3), (Trace.BEFORE, 0), (Trace.CLOSED, 0)):
        counter = TraceCounter(DEFAULT, trace)
        for piece in ("\n", "", " "):
            counter.push(piece)
        assert counter.num_tokens == expected
