"""Where stop strings count: in the answer, from the min_tokens-th token on, in no forced token."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.sampling.thinking_budget import ThinkingBudget
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.text.reasoning import Trace
from support.examples import up_to
from support.pieces import PieceTokenizer, SaysPieces


def said(
    pieces: Sequence[str],
    *,
    trace: Trace = Trace.CLOSED,
    budget: int | None = None,
    max_tokens: int | None = None,
    vocabulary: Sequence[str] = (),
    **params: object,
) -> tuple[str, str, int]:
    """Return text, finish reason and number of tokens of a model that says `pieces`."""
    tokenizer = PieceTokenizer([*pieces, *vocabulary, "<eos>"])
    end = tokenizer.vocab_size - 1
    tokenizer.eos_ids = (end,)
    engine = SaysPieces([*range(len(pieces)), end], tokenizer.vocab_size)
    scheduler = Scheduler(engine, tokenizer)
    guide = None if budget is None else ThinkingBudget(DEFAULT, budget, tokenizer.encode, trace)
    limits = SamplingParams(max_tokens=max_tokens or len(pieces) + 20, **params)  # type: ignore[arg-type]
    scheduler.submit(Request("r", (0,), limits, guide, trace))
    updates: list[Update] = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    text = "".join(update.text for update in updates)
    num_tokens = sum(len(update.tokens) for update in updates)
    return text, str(updates[-1].finish_reason), num_tokens


@pytest.mark.parametrize("trace", [Trace.OPEN, Trace.BEFORE])
@pytest.mark.parametrize("stop", ["\n\n", "hm", "think", ">", "<", "</think>", "\n", "k>\n"])
def test_a_trace_its_tags_and_their_newlines_stop_nothing(trace, stop) -> None:
    pieces = ["<think>", "\n", "hm", "\n\n", "hm", "\n", "</think>", "\n\n", "yes", "!"]
    pieces = pieces if trace is Trace.BEFORE else pieces[1:]
    text, reason, count = said(pieces, trace=trace, stop=(stop,))
    assert (text, reason, count) == ("".join(pieces), "stop", len(pieces) + 1)  # by its own end


@pytest.mark.parametrize("trace", [Trace.OPEN, Trace.BEFORE])
def test_the_same_stop_string_ends_the_answer(trace) -> None:
    pieces = ["<think>hm, ", "a b", "</think>", "\n\n", "a ", "b", " c"]
    pieces = pieces if trace is Trace.BEFORE else pieces[1:]
    text, reason, count = said(pieces, trace=trace, stop=("a b",))
    assert text == "".join(pieces[: pieces.index("a ")])
    assert (reason, count) == ("stop", len(pieces) - 1)


def test_everything_is_the_answer_where_the_request_says_so() -> None:
    assert said(["a", "b", "</think>", "c"], stop=("b",)) == ("a", "stop", 2)


@pytest.mark.parametrize("piece", ["\n", " ", "\n\n", " \n"])
def test_white_space_before_an_answer_stops_at_once(piece) -> None:
    """Though a trace may yet follow it: the client has asked for an end there."""
    assert said([piece, "x"], trace=Trace.BEFORE, stop=(piece,)) == ("", "stop", 1)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["<", "b>"], ("", "stop", 2)),  # one token later: it might have been a trace
        (["<", "think>", "a", "</think>", "<b"], ("<think>a</think>", "stop", 5)),
        (["<thi"], ("", "stop", 2)),
    ],
)
def test_the_beginning_of_a_tag_waits_until_it_is_known(pieces, expected) -> None:
    assert said(pieces, trace=Trace.BEFORE, stop=("<",)) == expected


def test_a_stop_string_that_waits_at_the_limit_is_found() -> None:
    text, reason, count = said(["<"], trace=Trace.BEFORE, stop=("<",), max_tokens=1)
    assert (text, reason, count) == ("", "stop", 1)


@pytest.mark.parametrize("stop", ["\n\n", "\n", "</think>", ">", "think"])
@pytest.mark.parametrize("is_split", [True, False])
@pytest.mark.parametrize("budget", [0, 1, 2])
def test_forced_tokens_stop_nothing(stop, is_split, budget) -> None:
    """Also where the trace is part of the content: the client's text is not what forced them."""
    thought = ["a", "\n", "b", "\n", "c", "\n"] if is_split else ["a", "b", "c"] * 200
    tokenizer = ["\n", "</", "think>", "\n\n", "</think>"]
    trace = Trace.OPEN
    forced = said(thought, trace=trace, budget=budget, vocabulary=tokenizer, stop=("zzz",))
    found = said(thought, trace=trace, budget=budget, vocabulary=tokenizer, stop=(stop,))
    # the model goes on with its own script behind the tag, where newlines count again
    end = forced[0].index("</think>\n\n") + len("</think>\n\n")
    assert found[0][:end] == forced[0][:end]
    everything = said_everything(thought, budget, tokenizer, stop)
    assert "</think>" in everything or stop in "".join(thought)


def said_everything(thought: list[str], budget: int, vocabulary: list[str], stop: str) -> str:
    """Return the text of a request whose stop strings count everywhere."""
    tokenizer = PieceTokenizer([*thought, *vocabulary])
    scheduler = Scheduler(SaysPieces(range(len(thought)), tokenizer.vocab_size), tokenizer)
    guide = ThinkingBudget(DEFAULT, budget, tokenizer.encode, Trace.OPEN)
    params = SamplingParams(max_tokens=len(thought) + 20, stop=(stop,))
    scheduler.submit(Request("r", (0,), params, guide, Trace.CLOSED))
    text = ""
    while not scheduler.is_idle:
        text += "".join(update.text for update in scheduler.step())
    return text


@pytest.mark.parametrize(
    ("min_tokens", "expected"),
    [
        (0, ("a ", "stop", 2)),
        (2, ("a ", "stop", 2)),  # the second token completes it, and two tokens are enough
        (3, ("a X b ", "stop", 4)),
        (4, ("a X b ", "stop", 4)),
        (5, ("a X b X c", "stop", 6)),  # by the model's own end
    ],
)
def test_min_tokens(min_tokens, expected) -> None:
    pieces = ["a ", "X", " b ", "X", " c"]
    assert said(pieces, stop=("X",), min_tokens=min_tokens) == expected


def test_a_stop_string_that_began_before_min_tokens_were_out_counts_once_it_is_whole() -> None:
    pieces = ["a", "St", "o", "p", "b"]
    assert said(pieces, stop=("Stop",), min_tokens=4) == ("a", "stop", 4)
    assert said(pieces, stop=("Stop",), min_tokens=5) == ("aStopb", "stop", 6)


@settings(deadline=None, max_examples=up_to(200))
@given(
    trace=st.text("abX\n", max_size=12),
    gap=st.text("\n", max_size=2),
    answer=st.text("abX\n", max_size=16),
    stop=st.lists(st.text("abX\n", min_size=1, max_size=3), min_size=1, max_size=3),
    min_tokens=st.integers(0, 12),
    cuts=st.lists(st.integers(0, 60), max_size=20),
    opens=st.booleans(),
)
def test_the_cuts_and_the_limits_hold_together(
    trace, gap, answer, stop, min_tokens, cuts, opens
) -> None:
    """The oracle looks for stop strings in the whole answer, whose place it knows."""
    answer = answer.lstrip("\n")
    head = ("<think>" if opens else "") + f"{trace}</think>{gap}"
    text = head + answer
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    min_tokens = min(min_tokens, len(pieces))
    expected = text, len(pieces) + 1
    for count, end in enumerate(places[1:], start=1):
        before = max(places[count - 1] - len(head), 0)
        now = answer[: max(end - len(head), 0)]
        starts = [
            place
            for s in stop
            for place in range(len(now))
            if now.startswith(s, place) and place + len(s) > before
        ]
        if starts and count >= min_tokens:
            expected = head + now[: min(starts)], count
            break
    found = said(
        pieces,
        trace=Trace.BEFORE if opens else Trace.OPEN,
        stop=tuple(stop),
        min_tokens=min_tokens,
    )
    assert (found[0], found[2]) == expected
    assert found[1] == FinishReason.STOP
