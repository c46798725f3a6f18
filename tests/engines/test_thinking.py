"""Traces that the model opens itself, and the hand-over from the trace to the answer's guide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.runtime.sampling.guide import COMPLETE, FREE, Allowed, Broken, Forced, Rule
from nemotrt.engines.runtime.sampling.thinking_budget import AfterThinking, ThinkingBudget
from nemotrt.engines.text.reasoning import Trace
from nemotrt.engines.text.tag_tokens import TagTokens, tag_tokens
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.grammar.guide import GrammarGuide
from support.pieces import PieceTokenizer

TINY = load_tokenizer(TINY_MODELS["tiny"])
assert TINY is not None


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def run(guide: ThinkingBudget, text: str) -> str:
    """Return what comes of a model that says `text`, and goes on behind what is forced."""
    output, rest = "", list(text)
    while rest or isinstance(guide.rule(), Forced):
        rule = guide.rule()
        token = rule.token if isinstance(rule, Forced) else ord(rest.pop(0))
        guide.push(token, chr(token))
        output += chr(token)
    return output


@pytest.mark.parametrize(
    ("budget", "text", "expected"),
    [
        (0, "<think>\na\nb", "<think></think>\n\n\na\nb"),
        (1, "<think>\na\nb", "<think>\n</think>\n\na\nb"),
        (2, "<think>\na\nb", "<think>\na\n</think>\n\nb"),
        (9, "<think>\na\n</think>\n\nb\nc\nd", "<think>\na\n</think>\n\nb\nc\nd"),
        (0, "\n<think>a", "\n<think></think>\n\na"),
        (0, "<thin\nair>\n\n", "<thin\nair>\n\n"),  # no trace: nothing to end
        (0, "a <think>\n", "a <think>\n"),  # a trace opens at the very start alone
    ],
)
def test_a_budget_counts_from_the_tag_that_the_model_writes(budget, text, expected) -> None:
    assert run(ThinkingBudget(DEFAULT, budget, encode, Trace.BEFORE), text) == expected


@settings(deadline=None)
@given(st.text("ab<>/think\n", max_size=60), st.integers(0, 3))
def test_without_a_trace_a_budget_changes_nothing(text, budget) -> None:
    assert run(ThinkingBudget(DEFAULT, budget, encode, Trace.CLOSED), text) == text
    if not text.lstrip().startswith("<think>"):
        assert run(ThinkingBudget(DEFAULT, budget, encode, Trace.BEFORE), text) == text


def test_a_prefill_within_a_line_is_let_finish_it() -> None:
    guide = ThinkingBudget(DEFAULT, 0, encode, Trace.OPEN, is_at_newline=False)
    assert run(guide, "end.\nmore") == "end.\n</think>\n\nmore"


class Wants:
    """A grammar of one text, character by character; its vocabulary is `pieces`."""

    def __init__(self, text: str, pieces: list[str]) -> None:
        self._text = text
        self._pieces = pieces
        self._num_read = 0
        self._is_wrong = False

    def rule(self) -> Rule:
        if self._is_wrong:
            return Broken("wrong")
        rest = self._text[self._num_read :]
        if not rest:
            return COMPLETE
        return Allowed(np.array([bool(p) and rest.startswith(p) for p in self._pieces]))

    def push(self, token: int, text: str) -> None:
        self.push_text(text)

    def push_text(self, text: str) -> None:
        self._is_wrong |= not self._text.startswith(text, self._num_read)
        self._num_read += len(text)

    def restart(self) -> None:
        self._num_read, self._is_wrong = 0, False


def follow(guide: AfterThinking, tokenizer: PieceTokenizer, pieces: list[str]) -> list[str]:
    """Push pieces that the guide must allow; return what it was asked before each: its rules."""
    rules = []
    for piece in pieces:
        token, rule = tokenizer.token_id(piece), guide.rule()
        assert token is not None
        allowed = rule == FREE or (isinstance(rule, Allowed) and bool(rule.mask[token]))
        assert allowed, (piece, rule)
        rules.append(type(rule).__name__)
        guide.push(token, piece)
    return rules


def guided(pieces: list[str], answer: str, trace: Trace) -> tuple[AfterThinking, PieceTokenizer]:
    tokenizer = PieceTokenizer(pieces)
    thinking = ThinkingBudget(DEFAULT, float("inf"), tokenizer.encode, trace)
    tags = tag_tokens(tokenizer, tokenizer.vocab_size)
    return AfterThinking(thinking, Wants(answer, pieces), tags), tokenizer


SMALL = [*"<think>/\n", "\n\n", "</think>", "hm", "{", "}", "k>{", "k>", "</thin", "k>\n\n{", "x"]


@pytest.mark.parametrize(
    "close",
    [
        ["</think>"],
        ["</think>", "\n\n"],
        ["</think>", "\n", "\n"],
        ["</thin", "k>"],
        ["</thin", "k>{"],
        ["</thin", "k>\n\n{"],
        [*"</think>"],
        [*"</think>", "\n"],
    ],
)
def test_the_answer_begins_where_the_tag_ends(close) -> None:
    guide, tokenizer = guided(SMALL, "{}", Trace.OPEN)
    answer = ["}"] if close[-1].endswith("{") else ["{", "}"]
    follow(guide, tokenizer, ["hm", "}", *close, *answer])
    assert guide.rule() == COMPLETE


def test_newlines_between_tag_and_answer_are_bounded() -> None:
    guide, tokenizer = guided(SMALL, "{}", Trace.OPEN)
    follow(guide, tokenizer, ["</think>"])
    newline, two = tokenizer.token_id("\n"), tokenizer.token_id("\n\n")
    rule = guide.rule()
    assert isinstance(rule, Allowed) and rule.mask[newline] and rule.mask[two]
    guide.push(newline, "\n")
    rule = guide.rule()
    assert isinstance(rule, Allowed) and rule.mask[newline] and not rule.mask[two]
    guide.push(newline, "\n")
    rule = guide.rule()
    assert isinstance(rule, Allowed) and not rule.mask[newline] and rule.mask.sum() == 1


def test_a_forced_tag_has_its_newlines() -> None:
    tokenizer = PieceTokenizer(SMALL)
    thinking = ThinkingBudget(DEFAULT, 0, tokenizer.encode)
    guide = AfterThinking(thinking, Wants("{}", SMALL), tag_tokens(tokenizer, tokenizer.vocab_size))
    while isinstance(rule := guide.rule(), Forced):
        guide.push(rule.token, SMALL[rule.token])
    assert isinstance(rule, Allowed) and np.flatnonzero(rule.mask).tolist() == [SMALL.index("{")]


def test_text_in_the_tags_token_that_the_answer_refuses_breaks_it() -> None:
    guide, tokenizer = guided(SMALL, "x", Trace.OPEN)
    follow(guide, tokenizer, ["hm", "</thin", "k>{"])
    assert guide.rule() == Broken("wrong")


@pytest.mark.parametrize("answer", ["{}", "<x", "<thx", "<think>x"])
@pytest.mark.parametrize("opens", [True, False])
def test_a_model_may_open_a_trace_beside_any_grammar(answer, opens) -> None:
    """Also where the answer itself begins as the tag does."""
    guide, tokenizer = guided(SMALL, answer, Trace.BEFORE)
    if opens:
        rules = follow(guide, tokenizer, [*"<think>", "\n", "hm", "{", "</think>", "\n\n"])
        assert rules[7:11] == ["Free"] * 4
    if opens or not answer.startswith("<think>"):
        follow(guide, tokenizer, [c for c in answer if c in SMALL])
        assert guide.rule() == COMPLETE


def test_neither_a_tag_nor_an_answer_is_not_allowed() -> None:
    guide, _ = guided(SMALL, "{}", Trace.BEFORE)
    rule = guide.rule()
    assert isinstance(rule, Allowed)
    assert {SMALL[i] for i in np.flatnonzero(rule.mask)} == {"{", "<"}
    guide.push(SMALL.index("<"), "<")
    rule = guide.rule()
    assert isinstance(rule, Allowed) and {SMALL[i] for i in np.flatnonzero(rule.mask)} == {"t"}


def test_a_tag_that_is_one_token_is_written_by_it_alone() -> None:
    pieces = [*SMALL, "<think>", "</think>"]
    guide, tokenizer = guided(pieces, "{}", Trace.BEFORE)
    rule = guide.rule()
    assert isinstance(rule, Allowed)
    assert {pieces[i] for i in np.flatnonzero(rule.mask)} == {"{", "<think>"}
    follow(guide, tokenizer, ["<think>", "hm", "</think>", "{", "}"])
    assert guide.rule() == COMPLETE


def test_the_tags_of_the_tiny_tokenizer() -> None:
    """Its own way to write the tag is among those that are allowed: `<`, `th`, `ink`, `>\\n`."""
    tags = tag_tokens(TINY, 4096)
    written = ""
    for token in TINY.encode("<think>\n", add_special_tokens=False):
        assert token in tags.opening_after(written)
        written += TINY.decode([token])
    assert written == "<think>\n"
    assert [text for _, text in tags.newlines] == ["\n", "\n\n"]
    assert tags.newlines_up_to(0) == []


def test_tags_that_are_special_tokens_are_text_all_the_same() -> None:
    """Else the trace of such a tokenizer would never end, and its prompt never open one."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

    from nemotrt.engines.text.tokenizer import Tokenizer

    backend = Backend.from_str(TINY.to_json())
    tags = ["<think>", "</think>"]
    backend.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    tokenizer = Tokenizer(backend)
    text = "<think>\nhm</think>\n\nyes 日本"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert {tokenizer.token_id(tag) for tag in tags} <= set(ids)
    decode = tokenizer.decoder()
    assert "".join(decode(token) for token in ids) == text
    assert [t for _, t in tag_tokens(tokenizer, tokenizer.vocab_size).opening] == ["<think>"]


def test_no_tags_allow_nothing_more() -> None:
    rule = AfterThinking(
        ThinkingBudget(DEFAULT, 0, encode, Trace.BEFORE), Wants("{", SMALL), TagTokens(len(SMALL))
    ).rule()
    assert isinstance(rule, Allowed) and rule.mask.sum() == 1


def real_grammar(kind: str, guide: str) -> GrammarGuide:
    return GrammarCompiler(TINY, 4096, TINY.eos_ids).guide(kind, guide)


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("answer", ['{"a": 1}', "{}"])
def test_the_real_grammar_after_a_trace(opens, answer) -> None:
    """Tiny's own tokens; the one that closes the tag carries the answer's first character."""
    grammar = real_grammar("json", "")
    trace = Trace.BEFORE if opens else Trace.OPEN
    thinking = ThinkingBudget(DEFAULT, float("inf"), TINY.encode, trace)
    guide = AfterThinking(thinking, grammar, tag_tokens(TINY, 4096))
    text = ("<think>\n" if opens else "") + f"{{ hm </think>\n\n{answer}"
    for token in TINY.encode(text, add_special_tokens=False):
        rule = guide.rule()
        assert rule == FREE or (isinstance(rule, Allowed) and rule.mask[token]), TINY.decode(
            [token]
        )
        guide.push(token, TINY.decode([token]))
    rule = guide.rule()
    ends = isinstance(rule, Allowed) and all(rule.mask[i] for i in TINY.eos_ids[:1])
    assert rule == COMPLETE or ends


@pytest.mark.parametrize(("regex", "is_kept"), [(">yes", True), ("yes", False)])
def test_the_real_grammar_is_told_of_text_within_the_closing_token(regex, is_kept) -> None:
    """`>>` is one token of tiny's: the tag's end and the answer's beginning."""
    grammar = real_grammar("regex", regex)
    guide = AfterThinking(
        ThinkingBudget(DEFAULT, float("inf"), TINY.encode), grammar, tag_tokens(TINY, 4096)
    )
    for piece in ("</", "think"):
        for token in TINY.encode(piece, add_special_tokens=False):
            guide.push(token, TINY.decode([token]))
    both = TINY.token_id(">>")
    assert both is not None
    guide.push(both, ">>")
    rule = guide.rule()
    if is_kept:
        (first, *_) = TINY.encode("yes", add_special_tokens=False)
        assert isinstance(rule, Allowed) and rule.mask[first]
    else:
        assert isinstance(rule, Broken)


def test_the_real_grammar_forgets_what_turned_out_to_be_a_tag() -> None:
    grammar = real_grammar("regex", "<TOOL>|<b>")
    thinking = ThinkingBudget(DEFAULT, float("inf"), TINY.encode, Trace.BEFORE)
    guide = AfterThinking(thinking, grammar, tag_tokens(TINY, 4096))
    for text in ("<think>\n", "hm</think>\n\n", "<b>"):
        for token in TINY.encode(text, add_special_tokens=False):
            rule = guide.rule()
            assert rule == FREE or (isinstance(rule, Allowed) and rule.mask[token])
            guide.push(token, TINY.decode([token]))
    assert guide.rule() == COMPLETE
