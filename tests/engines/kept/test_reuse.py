"""A scheduler that keeps states, over an engine whose every step proves its own state."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.runtime.engine import KeepsState, Limits
from nemotrt.engines.runtime.kept_state import SavedState
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.guide import Complete, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.reuse import KeepRules, Reuse
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.state.kept.keep_points import MIN_GAIN, PERIOD, keep_points
from nemotrt.engines.runtime.state.kept.prefix_cache import PrefixCache
from nemotrt.engines.runtime.state.kept.prefix_tree import nodes
from nemotrt.errors import EnvironmentUnfitError
from support.ahead_pipeline import Ahead
from support.hash_engine import HashEngine, next_token

MARKER = 9
RULES = KeepRules(frozenset({MARKER}), answers_return=False)
NO_CHATS = KeepRules()
VOCAB = 50


def scheduler_over(
    engine: HashEngine, limit: int = 1 << 30, rules: KeepRules = NO_CHATS, **more: Any
) -> Scheduler:
    is_ahead = more.pop("is_ahead", False)
    target: Any = Ahead(engine) if is_ahead else engine
    reuse = Reuse(target, PrefixCache(limit, engine.state_bytes), rules)
    return Scheduler(target, reuse=reuse, **more)


def run(scheduler: Scheduler, requests: Iterable[Request] = ()) -> dict[str, list[Update]]:
    for request in requests:
        scheduler.submit(request)
    updates: dict[str, list[Update]] = {}
    while not scheduler.is_idle:
        for update in scheduler.step():
            updates.setdefault(update.request_id, []).append(update)
    return updates


def ids(updates: list[Update]) -> list[int]:
    return [token.id for update in updates for token in update.tokens]


def cached(updates: list[Update]) -> int | None:
    [number] = [u.cached_tokens for u in updates if u.cached_tokens is not None] or [None]
    return number


def expected(prompt: tuple[int, ...], count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        text.append(next_token(text, VOCAB))
    return text[len(prompt) :]


def asked(name: str, prompt: tuple[int, ...], count: int = 1, **more: Any) -> Request:
    return Request(name, prompt, SamplingParams(max_tokens=count), **more)


def storm(data: st.DataObject, scheduler: Scheduler, limit: int) -> None:
    """Forks, salts, priorities, cancellations and evictions in any order; each answer is right."""
    stems = [data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=60)) for _ in range(3)]
    live: dict[str, Request] = {}
    found: dict[str, list[Update]] = {}
    for number in range(data.draw(st.integers(1, 14))):
        what = data.draw(st.sampled_from(["submit", "submit", "submit", "cancel", "steps"]))
        if what == "submit":
            stem = data.draw(st.sampled_from(stems))
            own = data.draw(st.lists(st.integers(0, 9), max_size=20))
            prompt = (*stem[: data.draw(st.integers(1, len(stem)))], *own)
            request = asked(
                str(number),
                prompt,
                data.draw(st.integers(1, 30)),
                salt=data.draw(st.sampled_from(["", "a"])),
                priority=data.draw(st.integers(-1, 1)),
            )
            scheduler.submit(request)
            live[request.request_id] = request
        elif what == "cancel" and live:
            scheduler.cancel(data.draw(st.sampled_from(sorted(live))))
        for _ in range(data.draw(st.integers(0, 12))):
            for update in scheduler.step():
                found.setdefault(update.request_id, []).append(update)
        assert scheduler.kept is not None
        assert scheduler.kept.bytes <= limit
    for name, updates in run(scheduler).items():
        found.setdefault(name, []).extend(updates)
    for name, request in live.items():
        wanted = expected(request.prompt, request.params.max_tokens)
        said = ids(found[name])
        if found[name][-1].finish_reason is FinishReason.LENGTH:
            assert said == wanted
            assert cached(found[name]) is not None
        else:
            assert found[name][-1].finish_reason is FinishReason.CANCELLED
            assert said == wanted[: len(said)]


def check_kept(scheduler: Scheduler) -> None:
    """Of an idle scheduler: nothing is noted of a request, and all that is held serves somebody."""
    assert scheduler._reuse is not None
    assert not scheduler._reuse._ids
    cache = scheduler._reuse.cache
    held = [node for tree in cache._roots.values() for node in nodes(tree)]
    assert all(node.children or node.fixed is not None for node in held)
    fixed = [node.fixed for node in held if node.fixed is not None]
    counted = sum(state.num_bytes for state in fixed)
    counted += cache._bytes(sum(len(node.ids) for node in held))
    assert (cache.stats.bytes, cache.stats.states) == (counted, len(fixed))


def test_an_engine_keeps_states() -> None:
    assert isinstance(HashEngine(Limits(1, 8, 8)), KeepsState)


@given(st.data(), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_answer_is_that_without_kept_states(
    data: st.DataObject, is_ahead: bool, is_dense: bool
) -> None:
    """Forks, salts, priorities, cancellations, evictions and chunk sizes, in any order."""
    slots, chunk = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    engine = HashEngine(Limits(slots, 160, chunk), VOCAB, is_dense=is_dense)
    limit = data.draw(st.sampled_from([0, 2000, 6000, 1 << 30]))
    scheduler = scheduler_over(
        engine, limit, data.draw(st.sampled_from([RULES, NO_CHATS])), is_ahead=is_ahead
    )
    storm(data, scheduler, limit)
    check_kept(scheduler)
    if is_ahead:
        scheduler._pipeline.finish()  # type: ignore[attr-defined]
    assert [engine.held_tokens(engine.allocate()) for _ in range(slots)] == [0] * slots
    assert not engine.cache.array.any()  # nothing of it is left in a slot


@given(st.data(), st.sampled_from([400, 2000, 6000, 1 << 30]))
@settings(max_examples=40, deadline=None)
def test_a_host_without_memory_changes_no_answer(data: st.DataObject, limit: int) -> None:
    """Any save may fail: of a prefix, of what an end leaves, of a sequence that gives way."""
    engine = HashEngine(Limits(data.draw(st.integers(1, 3)), 160, 40), VOCAB)
    save = engine.save

    def failing(slot: int, start: int = 0) -> SavedState:
        if data.draw(st.integers(0, 2)) == 0:
            raise EnvironmentUnfitError("no memory")
        return save(slot, start)

    engine.save = failing  # type: ignore[method-assign]
    scheduler = scheduler_over(engine, limit)
    storm(data, scheduler, limit)
    check_kept(scheduler)


@pytest.mark.parametrize("is_ahead", [False, True])
def test_a_chat_s_turns_feed_what_is_new(is_ahead: bool) -> None:
    engine = HashEngine(Limits(2, 600, 64), VOCAB)
    scheduler = scheduler_over(engine, rules=RULES, is_ahead=is_ahead)
    history: tuple[int, ...] = (MARKER, *range(10, 50), MARKER, *[11] * 30)
    before = 0
    for turn in range(5):
        prompt = (*history, MARKER, 1)
        updates = run(scheduler, [asked(str(turn), prompt, 6)])[str(turn)]
        assert ids(updates) == expected(prompt, 6)
        assert cached(updates) == before
        before = len(history) + 1  # the last marker is the next turn's too
        history = (*history, MARKER, *[2] * 9, MARKER, *[20 + turn] * 25)
    assert scheduler.kept is not None
    assert scheduler.kept.hit_tokens > 300


@pytest.mark.parametrize("is_ahead", [False, True])
def test_many_answers_prefill_once(is_ahead: bool) -> None:
    engine = HashEngine(Limits(8, 300, 32), VOCAB)
    scheduler = scheduler_over(engine, is_ahead=is_ahead)
    prompt = tuple(range(10, 45)) * 5
    found = run(scheduler, [asked(str(i), prompt, 1) for i in range(8)])
    assert all(ids(updates) == expected(prompt, 1) for updates in found.values())
    assert sorted(cached(u) or 0 for u in found.values()) == [0] + [len(prompt) - 1] * 7
    if is_ahead:
        scheduler._pipeline.finish()  # type: ignore[attr-defined]
    assert engine.num_fed <= len(prompt) + 7 + 8  # a step ahead each is fed once more


def test_forks_are_kept_when_seen_twice() -> None:
    engine = HashEngine(Limits(1, 300, 300), VOCAB)
    scheduler = scheduler_over(engine)
    stem = tuple(range(10, 45)) * 3
    found = [
        cached(run(scheduler, [asked("x", (*stem, *[own] * 40))])["x"]) for own in (1, 2, 3, 4)
    ]
    assert found == [0, 0, len(stem), len(stem)]


def test_a_request_waits_for_the_prefix_that_another_computes() -> None:
    """And others, which share nothing, do not wait behind it."""
    engine = HashEngine(Limits(3, 300, 10), VOCAB)
    scheduler = scheduler_over(engine, max_num_tokens=20)
    stem = tuple(range(10, 45)) * 3
    for name, prompt in (("a", (*stem, 1, 1)), ("b", (*stem, 2)), ("c", (5, 6, 7))):
        scheduler.submit(asked(name, prompt, 3))
    scheduler.step()
    assert set(scheduler.running) == {"a", "c"}
    found = run(scheduler)
    assert cached(found["b"]) == len(stem)
    assert ids(found["b"]) == expected((*stem, 2), 3)


def test_it_waits_no_more_when_the_other_has_gone() -> None:
    engine = HashEngine(Limits(3, 300, 10), VOCAB)
    scheduler = scheduler_over(engine)
    stem = tuple(range(10, 45)) * 3
    scheduler.submit(asked("a", (*stem, 1)))
    scheduler.submit(asked("b", (*stem, 2)))
    for _ in range(2):
        scheduler.step()
    scheduler.cancel("a")
    found = run(scheduler)
    assert ids(found["b"]) == expected((*stem, 2), 1)
    assert cached(found["b"]) == 20  # what a cancelled one has computed is kept


def test_no_salt_sees_another_s() -> None:
    scheduler = scheduler_over(HashEngine(Limits(2, 300, 300), VOCAB))
    prompt = tuple(range(10, 45)) * 3
    found = [
        cached(run(scheduler, [asked("x", prompt, salt=salt)])["x"])
        for salt in ("a", "b", "", "a", "b", "")
    ]
    assert found == [0, 0, 0, *[len(prompt) - 1] * 3]
    together = run(scheduler, [asked(salt, (*[1] * 60,), salt=salt) for salt in ("a", "b")])
    assert [cached(u) for u in together.values()] == [0, 0]  # nor waits for it


@pytest.mark.parametrize("is_ahead", [False, True])
def test_a_better_priority_takes_a_slot_and_gives_it_back(is_ahead: bool) -> None:
    engine = HashEngine(Limits(2, 100, 16), VOCAB)
    scheduler = scheduler_over(engine, is_ahead=is_ahead)
    low = [asked(f"low{i}", (1 + i, 2, 3), 30, priority=5 + i) for i in range(2)]
    for request in low:
        scheduler.submit(request)
    found: dict[str, list[Update]] = {}
    for _ in range(8):
        for update in scheduler.step():
            found.setdefault(update.request_id, []).append(update)
    scheduler.submit(asked("high", (7, 7), 4, priority=0))
    for update in scheduler.step():
        found.setdefault(update.request_id, []).append(update)
    assert set(scheduler.running) == {"low0", "high"}
    assert [request.request_id for request in scheduler.waiting] == ["low1"]
    for name, updates in run(scheduler).items():
        found.setdefault(name, []).extend(updates)
    assert ids(found["high"]) == expected((7, 7), 4)
    for request in low:
        assert ids(found[request.request_id]) == expected(request.prompt, 30)
    assert scheduler.kept is not None
    assert scheduler.kept.preemptions == 1


def test_no_equal_priority_and_no_cache_takes_a_slot() -> None:
    for limit, priority in ((1 << 30, 5), (0, 0)):
        scheduler = scheduler_over(HashEngine(Limits(1, 100, 16), VOCAB), limit)
        scheduler.submit(asked("low", (1, 2, 3), 30, priority=5))
        scheduler.step()
        scheduler.submit(asked("other", (7, 7), 4, priority=priority))
        scheduler.step()
        assert set(scheduler.running) == {"low"}
        assert set(run(scheduler)) == {"low", "other"}


def test_a_parked_request_can_be_cancelled() -> None:
    scheduler = scheduler_over(HashEngine(Limits(1, 100, 16), VOCAB))
    scheduler.submit(asked("low", (1, 2, 3), 30, priority=5))
    scheduler.step()
    scheduler.submit(asked("high", (7, 7), 4))
    scheduler.step()
    scheduler.cancel("low")
    found = run(scheduler)
    assert found["low"][-1].finish_reason is FinishReason.CANCELLED
    assert scheduler.kept is not None
    assert scheduler.kept.bytes == 0


def test_states_of_wrong_numbers_are_not_kept() -> None:
    """What a faulty step left must not answer the next one; what it began with goes too."""
    engine = HashEngine(Limits(1, 300, 300), VOCAB)
    scheduler = scheduler_over(engine)
    prompt = tuple(range(10, 45)) * 3
    run(scheduler, [asked("x", prompt)])
    step = engine.step
    engine.step = lambda feeds: step(feeds) * float("nan")  # type: ignore[method-assign]
    assert cached(run(scheduler, [asked("y", prompt)])["y"]) is None
    assert scheduler.kept is not None
    engine.step = step  # type: ignore[method-assign]
    assert cached(run(scheduler, [asked("z", prompt)])["z"]) == 0


def test_points() -> None:
    long = [1] * 3 * PERIOD
    chat = [MARKER, *[1] * 100, MARKER, *[1] * 200, MARKER, 1, 1]
    assert keep_points(chat, {MARKER}, 0) == [102, 303]
    assert keep_points(chat, {MARKER}, 102) == [303]
    assert keep_points(chat, {MARKER}, 102, [120, 50]) == [120, 303]
    assert keep_points(long, {MARKER}, 0) == [PERIOD, 2 * PERIOD, 3 * PERIOD - 1]
    assert keep_points(long[: MIN_GAIN + 1], {MARKER}, 0) == [MIN_GAIN]
    assert keep_points(long[:MIN_GAIN], {MARKER}, 0) == []
    assert keep_points([MARKER, *long], {MARKER}, 0)[-1] == 3 * PERIOD


def test_saved_seconds_are_an_estimate_from_what_prompts_took() -> None:
    engine = HashEngine(Limits(1, 300, 300), VOCAB)
    now = 0.0
    scheduler = scheduler_over(engine, clock=lambda: now)
    step = engine.step

    def slow(feeds: Any) -> Any:
        nonlocal now
        now += 0.5 * sum(len(feed.tokens) for feed in feeds)
        return step(feeds)

    engine.step = slow  # type: ignore[method-assign]
    prompt = tuple(range(10, 50))
    for _ in range(2):
        run(scheduler, [replace(asked("x", prompt))])
    assert scheduler.kept is not None
    assert scheduler.kept.saved_s == pytest.approx(39 * 0.5)


class NothingMayCome:
    """A guide whose text is whole before its first token."""

    def rule(self) -> Rule:
        return Complete()

    def push(self, token: int, text: str) -> None:
        raise AssertionError(token, text)


def test_every_answer_says_its_cached_tokens() -> None:
    """Also one that ends before it computes anything: it says 0, where a state is kept."""
    request = asked("x", (1, 2, 3), guide=NothingMayCome())
    engine = HashEngine(Limits(1, 300, 300), VOCAB)
    assert [u.cached_tokens for u in run(scheduler_over(engine), [request])["x"]] == [0]
    assert [u.cached_tokens for u in run(Scheduler(engine), [request])["x"]] == [None]


def test_a_name_that_comes_again_has_its_own_prompt() -> None:
    """Also where the request before it ended at once, beside one whose prompt was under way."""
    scheduler = scheduler_over(HashEngine(Limits(2, 300, 10), VOCAB))
    first, other = tuple(range(10, 45)) * 3, tuple(range(45, 10, -1)) * 3
    scheduler.submit(asked("long", first, 3))
    scheduler.step()
    scheduler.submit(asked("x", (5, *first), guide=NothingMayCome()))
    scheduler.step()
    found = run(scheduler, [asked("x", other, 3)])
    assert ids(found["x"]) == expected(other, 3)
    again = run(scheduler, [asked("y", (*other, 1), 3)])["y"]
    assert cached(again) == len(other) - 1
    assert ids(again) == expected((*other, 1), 3)
