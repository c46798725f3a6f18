"""In-flight batching: every output equals its solo run, whatever comes and goes beside it."""

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.generation import generate
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.errors import ConfigError
from support.ahead_pipeline import Ahead
from support.examples import up_to


class CountingEngine:
    """An engine whose next token is the sum of all tokens held, modulo the vocabulary."""

    vocab_size = 50

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.slots: dict[int, list[int]] = {}
        self.steps: list[dict[int, int]] = []

    def allocate(self) -> int:
        slot = min(set(range(self.limits.max_batch_size)) - set(self.slots))
        self.slots[slot] = []
        return slot

    def release(self, slot: int) -> None:
        del self.slots[slot]

    def held_tokens(self, slot: int) -> int:
        return len(self.slots[slot])

    def step(self, feeds: list[Feed]) -> np.ndarray:
        self.steps.append({feed.slot: len(feed.tokens) for feed in feeds})
        logits = np.zeros((len(feeds), self.vocab_size), np.float32)
        for row, feed in zip(logits, feeds, strict=True):
            self.slots[feed.slot] += feed.tokens
            row[sum(self.slots[feed.slot]) % self.vocab_size] = 1
        return logits

    def close(self) -> None:
        pass


def expected_tokens(prompt: tuple[int, ...], count: int) -> list[int]:
    total, out = sum(prompt), []
    for _ in range(count):
        out.append(total % 50)
        total += out[-1]
    return out


def run(scheduler: Scheduler) -> dict[str, list[Update]]:
    """Step until idle; return each request's updates."""
    updates: dict[str, list[Update]] = {}
    while not scheduler.is_idle:
        for update in scheduler.step():
            updates.setdefault(update.request_id, []).append(update)
    return updates


def ids(updates: list[Update]) -> list[int]:
    return [token.id for update in updates for token in update.tokens]


@given(
    prompts=st.lists(
        st.tuples(st.lists(st.integers(0, 49), min_size=1, max_size=40), st.integers(1, 20)),
        min_size=1,
        max_size=12,
    ),
    slots=st.integers(1, 4),
    chunk=st.integers(1, 9),
    extra=st.integers(0, 10),
    is_ahead=st.booleans(),
)
@settings(max_examples=up_to(100), deadline=None)
def test_every_request_completes_within_the_limits(
    prompts: list[tuple[list[int], int]], slots: int, chunk: int, extra: int, is_ahead: bool
) -> None:
    limits = Limits(slots, 64, chunk)
    engine = CountingEngine(limits)
    ahead = Ahead(engine)
    scheduler = Scheduler(ahead if is_ahead else engine, max_num_tokens=slots + extra)
    for number, (prompt, count) in enumerate(prompts):
        params = SamplingParams(max_tokens=count)
        scheduler.submit(Request(str(number), tuple(prompt), params))
    updates = run(scheduler)
    if is_ahead:
        ahead.own.finish()
    for number, (prompt, count) in enumerate(prompts):
        found = updates[str(number)]
        assert ids(found) == expected_tokens(tuple(prompt), count)
        assert [u.finish_reason for u in found] == [None] * (count - 1) + [FinishReason.LENGTH]
    assert engine.slots == {}
    assert all(sum(step.values()) <= slots + extra for step in engine.steps)
    assert all(max(step.values()) <= max(chunk, 1) for step in engine.steps)


def test_decoding_goes_on_while_a_long_prompt_comes_in() -> None:
    engine = CountingEngine(Limits(2, 64, 4))
    scheduler = Scheduler(engine)
    scheduler.submit(Request("short", (1,), SamplingParams(max_tokens=12)))
    scheduler.step()
    scheduler.submit(Request("long", tuple(range(30)), SamplingParams(max_tokens=2)))
    for _ in range(7):
        scheduler.step()
        assert len(engine.steps[-1]) == 2, "the decode stopped for the prompt"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("x", ()), "empty"),
        (Request("x", (50,)), "0 to 49"),
        (Request("x", (-1,)), "0 to 49"),
        (Request("x", (1,) * 60, SamplingParams(max_tokens=5)), "65 tokens"),
        (Request("x", (1,), SamplingParams(max_tokens=5, stop=("a",))), "tokenizer"),
    ],
)
def test_bad_requests_are_refused(request_: Request, message: str) -> None:
    scheduler = Scheduler(CountingEngine(Limits(2, 64, 4)))
    with pytest.raises(ConfigError, match=message):
        scheduler.submit(request_)
    assert scheduler.is_idle


def test_a_live_id_is_not_taken_twice_and_may_be_used_again() -> None:
    scheduler = Scheduler(CountingEngine(Limits(1, 64, 4)))
    for _ in range(2):
        scheduler.submit(Request("x", (1,), SamplingParams(max_tokens=3)))
        with pytest.raises(ConfigError, match="in use"):
            scheduler.submit(Request("x", (1,)))
        scheduler.step()
        with pytest.raises(ConfigError, match="in use"):
            scheduler.submit(Request("x", (1,)))
        run(scheduler)


def test_cancel_frees_the_slot_at_once_and_reports_once() -> None:
    engine = CountingEngine(Limits(1, 64, 4))
    scheduler = Scheduler(engine)
    scheduler.submit(Request("a", (1,), SamplingParams(max_tokens=50)))
    scheduler.submit(Request("b", (2,), SamplingParams(max_tokens=3)))
    scheduler.submit(Request("c", (3,), SamplingParams(max_tokens=3)))
    scheduler.step()
    scheduler.cancel("a")
    scheduler.cancel("c")
    scheduler.cancel("never heard of")
    assert engine.slots == {}
    updates = run(scheduler)
    assert [u.finish_reason for u in updates["a"]] == [FinishReason.CANCELLED]
    assert [u.finish_reason for u in updates["c"]] == [FinishReason.CANCELLED]
    assert ids(updates["b"]) == expected_tokens((2,), 3)


@pytest.mark.parametrize("wrap", [lambda engine: engine, Ahead], ids=["host", "ahead"])
def test_eos_stop_tokens_and_min_tokens(wrap: Callable[[Any], Any]) -> None:
    # from prompt (25,): 25, 0, 0, ... ; token 0 is the end
    engine = wrap(CountingEngine(Limits(1, 64, 4)))
    for params, expected, reason in [
        (SamplingParams(max_tokens=5), [25, 0], FinishReason.STOP),
        (SamplingParams(max_tokens=4, ignore_eos=True), [25, 0, 0, 0], FinishReason.LENGTH),
        (SamplingParams(max_tokens=5, stop_token_ids=(25,)), [25], FinishReason.STOP),
    ]:
        scheduler = Scheduler(engine, eos_ids=(0,))
        updates = list(generate(scheduler, (25,), params))
        assert ids(updates) == expected
        assert updates[-1].finish_reason is reason
        if isinstance(engine, Ahead):
            engine.own.finish()
    updates = list(
        generate(Scheduler(engine, eos_ids=(0,)), (25,), SamplingParams(max_tokens=9, min_tokens=4))
    )
    assert len(ids(updates)) >= 4 and 0 not in ids(updates)[:4]


# A pipeline that is ahead


def test_tokens_are_fed_before_they_are_known() -> None:
    """Every decode but the last one's; a sequence that ends early is fed once in vain."""
    ahead = Ahead(CountingEngine(Limits(2, 64, 4)))
    scheduler = Scheduler(ahead, eos_ids=(0,))
    scheduler.submit(Request("whole", (1,), SamplingParams(max_tokens=6)))
    scheduler.submit(Request("ends", (25,), SamplingParams(max_tokens=6)))  # 25, then 0
    updates = run(scheduler)
    assert ids(updates["whole"]) == expected_tokens((1,), 6)
    assert ids(updates["ends"]) == [25, 0]
    assert ahead.own.num_turns == 6 + 2
    assert ahead.own.num_rows == 6 + 2 + 1
    assert ahead.own.num_unknown == 5 + 2


def test_an_update_comes_while_the_next_step_is_under_way() -> None:
    engine = CountingEngine(Limits(1, 64, 4))
    scheduler = Scheduler(Ahead(engine))
    scheduler.submit(Request("a", (1,), SamplingParams(max_tokens=4)))
    assert scheduler.step() == [] and engine.steps == []
    for number in range(1, 4):
        [update] = scheduler.step()
        assert ids([update]) == expected_tokens((1,), number)[-1:]
        assert len(engine.steps) == number, "the step that has begun was waited for"
    [last] = scheduler.step()
    assert last.finish_reason is FinishReason.LENGTH and scheduler.is_idle


def test_an_id_may_be_used_again_while_its_old_step_is_under_way() -> None:
    scheduler = Scheduler(Ahead(CountingEngine(Limits(1, 64, 4))))
    scheduler.submit(Request("a", (1,), SamplingParams(max_tokens=9)))
    scheduler.step()
    scheduler.step()
    scheduler.cancel("a")
    scheduler.submit(Request("a", (2,), SamplingParams(max_tokens=3)))
    updates = run(scheduler)["a"]
    assert updates[0].finish_reason is FinishReason.CANCELLED
    assert ids(updates) == expected_tokens((2,), 3)


# The real engine


@pytest.fixture(scope="module")
def opened(tiny_engine: Path) -> OpenEngine:
    return open_engine(tiny_engine, OpenOptions(1))


Solo = dict[str, tuple[Request, list[int]]]


@pytest.fixture(scope="module")
def solo(opened: OpenEngine) -> Solo:
    """200 requests of random lengths, and the tokens that each gets alone."""
    rng = np.random.default_rng(11)
    runs: Solo = {}
    for number in range(200):
        prompt = rng.integers(32, opened.engine.vocab_size, int(rng.integers(1, 70))).tolist()
        kind = number % 3
        params = SamplingParams(
            max_tokens=int(rng.integers(1, 24)),
            ignore_eos=True,
            temperature=0.8 if kind == 1 else 0.0,
            seed=number,
            top_k=50 if kind == 1 else 0,
            repetition_penalty=1.2 if kind == 2 else 1.0,
        )
        request = Request(str(number), tuple(prompt), params)
        alone = generate(opened.scheduler(), request.prompt, params)
        runs[request.request_id] = request, ids(list(alone))
    return runs


@pytest.mark.parametrize("is_ahead", [False, True], ids=["host", "ahead"])
def test_200_requests_with_cancellations_equal_their_solo_runs(
    opened: OpenEngine, solo: Solo, is_ahead: bool
) -> None:
    """Random lengths through 8 slots, a third cancelled at random; memory does not grow."""
    rng = np.random.default_rng(12)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine = Ahead(opened.engine) if is_ahead else opened.engine
    scheduler = replace(opened, engine=engine).scheduler()
    found: dict[str, list[Update]] = {name: [] for name in solo}
    pending = [request for request, _ in solo.values()]
    cancelled = set()
    while pending or not scheduler.is_idle:
        for _ in range(int(rng.integers(0, 4))):
            if pending:
                scheduler.submit(pending.pop())
        live = [*scheduler.running, *(r.request_id for r in scheduler.waiting)]
        if live and rng.random() < 0.15:
            name = live[int(rng.integers(len(live)))]
            scheduler.cancel(name)
            cancelled.add(name)
        for update in scheduler.step():
            found[update.request_id].append(update)
    assert len(cancelled) > 20
    for name, updates in found.items():
        tokens = ids(updates)
        if name in cancelled:
            assert updates[-1].finish_reason is FinishReason.CANCELLED
            assert tokens == solo[name][1][: len(tokens)]
        else:
            assert tokens == solo[name][1]
            assert updates[-1].finish_reason is FinishReason.LENGTH
    if is_ahead:
        engine.own.finish()
        assert engine.own.num_unknown > 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024, f"{grown} KiB more than the solo runs"


def test_streamed_text_is_the_text_and_stop_strings_are_cut(opened: OpenEngine) -> None:
    assert opened.tokenizer is not None
    prompt = tuple(opened.tokenizer.encode("Debian は"))
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    updates = list(generate(opened.scheduler(), prompt, params))
    whole = "".join(update.text for update in updates)
    assert opened.tokenizer.decode(ids(updates)).startswith(whole.rstrip("\ufffd"))
    stop = whole[10:14]
    params = SamplingParams(max_tokens=40, ignore_eos=True, stop=(stop,))
    stopped = list(generate(opened.scheduler(), prompt, params))
    assert "".join(u.text for u in stopped) == whole[: whole.index(stop)]
    assert stopped[-1].finish_reason is FinishReason.STOP
