"""The thinking budget, and a scheduler that obeys a guide."""

import numpy as np
import pytest

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import FinishReason, Request
from nemotrt.engines.runtime.sampling.guide import (
    COMPLETE,
    FREE,
    Allowed,
    Broken,
    Forced,
    Rule,
    rules,
)
from nemotrt.engines.runtime.sampling.params import Sampler, SamplingParams
from nemotrt.engines.runtime.sampling.thinking_budget import (
    GRACE_TOKENS,
    AfterThinking,
    ThinkingBudget,
)
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.text.reasoning import Trace


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def run(budget: ThinkingBudget, free_text: str, count: int) -> str:
    """Return `count` characters of a model that writes `free_text` again and again."""
    output = ""
    for index in range(count):
        rule = budget.rule()
        free = ord(free_text[index % len(free_text)])
        token = rule.token if isinstance(rule, Forced) else free
        budget.push(token, chr(token))
        output += chr(token)
    return output


@pytest.mark.parametrize(
    ("max_tokens", "text", "expected"),
    [
        (0, "abc", "</think>\n\nbcabcabcab"),
        (3, "ab\ncd", "ab\n</think>\n\ndab\ncda"),  # the third token is the newline
        (4, "ab\ncd", "ab\ncdab\n</think>\n\nda"),  # the next newline after the fourth
    ],
)
def test_budget_ends_at_the_next_newline(max_tokens, text, expected) -> None:
    output = run(ThinkingBudget(DEFAULT, max_tokens, encode), text, len(expected))
    close = expected.index("</think>")
    assert output[: close + 10] == expected[: close + 10]


def test_budget_ends_after_the_grace_without_a_newline() -> None:
    output = run(ThinkingBudget(DEFAULT, 2, encode), "x", 2 * GRACE_TOKENS)
    assert output.index("\n</think>\n\n") == 2 + GRACE_TOKENS
    assert output.count("</think>") == 1


def test_a_trace_that_ends_by_itself_is_left_alone() -> None:
    text = "a</think>b\nc\n"
    assert run(ThinkingBudget(DEFAULT, 3, encode), text, 4 * len(text)) == 4 * text


def test_forced_and_allowed_tokens() -> None:
    logits = np.array([3.0, 2.0, 1.0], np.float32)
    sampler = Sampler(SamplingParams(logprobs=1), np.array([0]), ())
    choice = sampler.choose(logits, forced=2)
    assert choice.token == 2 and choice.logprob is not None and choice.top_logprobs[0][0] == 0
    assert sampler.choose(logits, allowed=np.array([False, True, True])).token == 1


class Ones:
    """An engine that always wants token 1."""

    limits = Limits(max_batch_size=1, max_seq_len=32, chunk_tokens=8)
    vocab_size = 4
    fed: tuple[int, ...] = ()

    def allocate(self) -> int:
        return 0

    def release(self, slot: int) -> None:
        pass

    def step(self, feeds):
        self.fed += tuple(feeds[0].tokens)
        return np.array([[0.0, 1.0, 0.0, 0.0]], np.float32)


class Then:
    """Forces 2 at the third token and forbids 1 at the fourth."""

    count = 0

    def rule(self) -> Rule:
        if self.count == 2:
            return Forced(2)
        if self.count == 3:
            return Allowed(np.array([False, False, False, True]))
        return FREE

    def push(self, token, text):
        self.count += 1


def test_scheduler_obeys_a_guide_and_feeds_nothing_twice() -> None:
    engine = Ones()
    scheduler = Scheduler(engine)
    scheduler.submit(Request("r", (0, 0), SamplingParams(max_tokens=5), Then()))
    tokens = []
    while not scheduler.is_idle:
        tokens += [token.id for update in scheduler.step() for token in update.tokens]
    assert tokens == [1, 1, 2, 3, 1]
    assert engine.fed == (0, 0, 1, 1, 2, 3)


def test_another_guide_takes_over_after_the_trace() -> None:
    answer = Then()
    guide = AfterThinking(ThinkingBudget(DEFAULT, 0, encode), answer)
    for character in "</think>\n\n":
        assert guide.rule() == Forced(ord(character))
        guide.push(ord(character), character)
    assert answer.count == 0
    guide.push(1, "a")
    guide.push(1, "b")
    assert guide.rule() == Forced(2)


class EndsAfter:
    """Is free for some tokens, then as told."""

    def __init__(self, num_tokens: int, end: Rule) -> None:
        self.num_left = num_tokens
        self.end = end

    def rule(self) -> Rule:
        return FREE if self.num_left > 0 else self.end

    def push(self, token: int, text: str) -> None:
        self.num_left -= 1


@pytest.mark.parametrize("num_tokens", [0, 1, 3])
@pytest.mark.parametrize(
    ("end", "reason", "error"),
    [(COMPLETE, FinishReason.STOP, ""), (Broken("why"), FinishReason.ERROR, "why")],
)
def test_a_complete_or_broken_guide_ends_the_request(num_tokens, end, reason, error) -> None:
    scheduler = Scheduler(Ones())
    params = SamplingParams(max_tokens=max(num_tokens, 1))  # complete at the limit is complete
    scheduler.submit(Request("r", (0, 0), params, EndsAfter(num_tokens, end)))
    scheduler.submit(Request("free", (0, 0), SamplingParams(max_tokens=6)))
    updates = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    mine = [update for update in updates if update.request_id == "r"]
    assert sum(len(update.tokens) for update in mine) == num_tokens
    assert (mine[-1].finish_reason, mine[-1].error) == (reason, error)
    assert sum(len(update.tokens) for update in updates if update.request_id == "free") == 6


class EndOrTwo:
    """A text of any number of twos, which token 3 ends."""

    def rule(self) -> Rule:
        return Allowed(np.array([False, False, True, True]))

    def push(self, token: int, text: str) -> None:
        pass


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_an_end_that_a_mask_allows_is_the_end(ignore_eos) -> None:
    """Token 3 is as likely as 2 here; ignored, it would be followed by more."""
    scheduler = Scheduler(Ones(), eos_ids=(3,))
    params = SamplingParams(max_tokens=30, temperature=1.0, seed=1, ignore_eos=ignore_eos)
    scheduler.submit(Request("r", (0, 0), params, EndOrTwo()))
    updates = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    tokens = [token.id for update in updates for token in update.tokens]
    assert tokens == [2] * (len(tokens) - 1) + [3]
    assert updates[-1].finish_reason is FinishReason.STOP


class Counted:
    """A guide that is told of what its kind computes at one time."""

    def __init__(self, batch: "Batch") -> None:
        self.batch = batch
        self.is_ready = False

    def rule(self) -> Rule:
        return Forced(int(self.is_ready))

    def push(self, token: int, text: str) -> None:
        """It steers nothing."""

    push_text = restart = push


class Batch:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def prepare(self, guides: list[Counted]) -> None:
        self.sizes.append(len(guides))
        for guide in guides:
            guide.is_ready = True


def test_rules_are_prepared_by_batch() -> None:
    """Each guide once; the one in charge of a trace; nothing for one alone."""
    one, other = Batch(), Batch()
    first, second, third, alone = Counted(one), Counted(one), Counted(one), Counted(other)
    closed = AfterThinking(ThinkingBudget(DEFAULT, 9, encode, Trace.CLOSED), third)
    thinking = AfterThinking(ThinkingBudget(DEFAULT, 0, encode), Counted(other))
    free = ThinkingBudget(DEFAULT, 9, encode, Trace.CLOSED)
    found = rules([first, thinking, alone, second, closed, free, first])
    forced = Forced(ord("<"))
    assert found == [Forced(1), forced, Forced(0), Forced(1), Forced(1), FREE, Forced(1)]
    assert (one.sizes, other.sizes) == ([3], [])
    assert rules([]) == []
