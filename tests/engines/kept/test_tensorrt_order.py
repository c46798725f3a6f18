"""Steps and copies of rows on two streams: each waits for what it must, and for no more.

The plan's every step proves its state; streams do their work as late as CUDA may, or copies early.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pytest

from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.device.stream import Stream
from nemotrt.engines.backends.tensorrt.run.arrivals import Arrivals
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.backends.tensorrt.run.kept_rows import KeptRows
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.kept_state import FixedState, first_tokens, last_tokens
from nemotrt.errors import EnvironmentUnfitError
from support.hash_engine import next_token
from support.hash_plan import VOCAB, opened


def fed(engine: TensorRTEngine, texts: dict[int, list[int]], *slots: int) -> None:
    """Enqueue one more token for each slot; nothing is waited for."""
    for slot in slots:
        texts[slot].append(next_token(texts[slot], VOCAB))
    engine.enqueue([Feed(slot, texts[slot][-1:]) for slot in slots])


def scenario(engine: TensorRTEngine, *, is_awaited: bool) -> None:
    """Save, step on, free, move and restore rows.

    Nothing is waited for until the end; or steps are, as when their tokens are read.
    """
    wait = engine._cuda.synchronize if is_awaited else lambda: None
    a, b = engine.allocate(), engine.allocate()
    texts = {a: list(range(12)), b: [7] * 9}
    engine.enqueue([Feed(slot, list(texts[slot])) for slot in (a, b)])
    saved_a, saved_b, was_a, was_b = engine.save(a), engine.save(b), [*texts[a]], [*texts[b]]
    fed(engine, texts, a, b)
    wait()
    engine.release(b)
    assert engine.allocate() == b
    engine.restore(b, saved_b.fixed, saved_b.caches)
    texts[b] = [*was_b]
    fed(engine, texts, a, b)
    more, was_more = engine.save(b, len(was_b)), [*texts[b]]
    c = engine.allocate()
    texts[c] = [3, 1]
    engine.enqueue([Feed(c, [3, 1])])
    saved_c = engine.save(c)
    engine.release(b)
    assert engine._table.row_of[c] == 2
    fed(engine, texts, a, c)  # moves a row
    wait()
    b = engine.allocate()
    cut = (*first_tokens(saved_a.caches, 5), *last_tokens(saved_a.caches, 5))  # the host's
    engine.restore(b, saved_a.fixed, cut)
    texts[b] = was_a
    engine.release(a)
    assert engine.allocate() == a
    engine.restore(a, more.fixed, (*saved_b.caches, *more.caches))
    texts[a] = was_more
    engine.release(c)
    assert engine.allocate() == c
    engine.restore(c, saved_c.fixed, saved_c.caches)
    texts[c] = [3, 1]
    fed(engine, texts, a, b, c)
    for slot, row in zip((a, b, c), engine.step([Feed(s, [5]) for s in (a, b, c)]), strict=True):
        assert row.argmax() == next_token([*texts[slot], 5], VOCAB)


LIMITS = Limits(3, 40, 20)


@pytest.mark.parametrize("is_early", [False, True])
@pytest.mark.parametrize("is_awaited", [False, True])
@pytest.mark.parametrize("layout", StateLayout)
def test_rows_are_read_and_written_in_their_turn(
    layout: StateLayout, is_early: bool, is_awaited: bool
) -> None:
    with opened(LIMITS, layout, is_early=is_early) as engine:
        scenario(engine, is_awaited=is_awaited)


def test_a_step_does_not_wait_for_what_is_kept() -> None:
    """With room for a copy on the device, neither the next step nor the host waits."""
    with opened(LIMITS, StateLayout.IN_PLACE) as engine:
        slot = engine.allocate()
        texts = {slot: [1, 2, 3]}
        engine.enqueue([Feed(slot, [1, 2, 3])])
        api = engine._cuda._api
        saved = engine.save(slot)
        fed(engine, texts, slot)
        assert saved.fixed.num_bytes == engine.state_bytes.per_sequence
        assert len(api.queue) > 3, "to save waits for the steps"
        engine._cuda.synchronize()
        assert api.streams[engine._states._side.stream].queue, "the step waits for the copy"
        saved.fixed.wait()
        assert not api.streams[engine._states._side.stream].queue


Mutant = Callable[[pytest.MonkeyPatch, KeptRows], None]


def without_follow(events: Callable[[KeptRows], Sequence[int]]) -> Mutant:
    """Have no stream wait for some events."""

    def mutate(patch: pytest.MonkeyPatch, rows: KeptRows) -> None:
        own, gone = Stream.follow, events(rows)
        patch.setattr(Stream, "follow", lambda s, event: event in gone or own(s, event))

    return mutate


def without_await(name: str) -> Mutant:
    """Have a method of rows wait for no copy."""

    def mutate(patch: pytest.MonkeyPatch, rows: KeptRows) -> None:
        own = getattr(KeptRows, name)

        def method(rows: KeptRows, *arguments: Any, **more: Any) -> Any:
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(KeptRows, "_await", lambda rows, which: None)
                return own(rows, *arguments, **more)

        patch.setattr(KeptRows, name, method)

    return mutate


def unrecorded(name: str) -> Mutant:
    """Have a method of rows say of no row when it has settled."""

    def mutate(patch: pytest.MonkeyPatch, rows: KeptRows) -> None:
        own, settled = getattr(KeptRows, name), set(rows._settled)
        record = Stream.record

        def method(rows: KeptRows, *arguments: Any) -> None:
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(Stream, "record", lambda s, e: e in settled or record(s, e))
                own(rows, *arguments)

        patch.setattr(KeptRows, name, method)

    return mutate


def unstaged(patch: pytest.MonkeyPatch, rows: KeptRows) -> None:
    events = set(rows._staging._events)
    own = Stream.wait
    patch.setattr(Stream, "wait", lambda s, event: event in events or own(s, event))


MUTANTS: dict[str, Mutant] = {
    "a copy leaves before the step is done": without_follow(lambda r: [r._stepped]),
    "a copy comes before the row is clear": without_follow(lambda r: r._settled),
    "a copy comes before the row is clear again": unrecorded("clear"),
    "a copy comes before the row has gone": unrecorded("swap"),
    "the next copy writes over one that has not left": without_follow(lambda r: [r._left]),
    "a step begins before its state is there": without_await("bindings"),
    "a row is cleared while it is read": without_await("clear"),
    "a row is moved while it is read": without_await("swap"),
    "the host writes over what it has staged": unstaged,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_missing_wait_shows(name: str) -> None:
    """In some layout, with copies as late as they may be or as early."""
    found = []
    for layout, is_early, is_awaited in itertools.product(StateLayout, *[(False, True)] * 2):
        with (
            suppress(AssertionError),  # of what is left in the streams
            opened(LIMITS, layout, is_early=is_early) as engine,
            pytest.MonkeyPatch.context() as patch,
        ):
            MUTANTS[name](patch, engine._states)
            try:
                scenario(engine, is_awaited=is_awaited)
            except AssertionError as error:
                found.append(str(error))
    assert found


@pytest.mark.parametrize("is_awaited", [True, False])
def test_the_host_reads_what_has_arrived(is_awaited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it would read else is not that."""
    if not is_awaited:
        monkeypatch.setattr(Arrivals, "wait", lambda arrivals, number: None)
    for cut in (False, True):
        with opened(LIMITS, StateLayout.IN_PLACE) as engine:
            slot = engine.allocate()
            engine.enqueue([Feed(slot, [1, 2, 3, 4])])
            [piece] = (saved := engine.save(slot)).caches
            found = piece.part(1, 3).arrays if cut else saved.fixed.halved().arrays
            engine._states._side.synchronize()
            wanted = [a[:, 1:3] for a in piece.arrays] if cut else saved.fixed.arrays
            pairs = zip(found, wanted, strict=True)
            assert all(np.array_equal(own, other) for own, other in pairs) == is_awaited


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_state_comes_behind_the_first_zeros(is_recorded: bool) -> None:
    """Of a row that was never used; and that shows, too."""
    text = [4, 8, 15]
    with opened(LIMITS, StateLayout.IN_PLACE) as engine:
        slot = engine.allocate()
        engine.step([Feed(slot, text)])
        saved = engine.save(slot)
        fixed = FixedState(tuple(array.copy() for array in saved.fixed.halved().arrays))
        caches = [piece.part(0, piece.num_tokens) for piece in saved.caches]
        del saved
    with (
        suppress(AssertionError),
        opened(LIMITS, StateLayout.IN_PLACE, is_early=True) as engine,
    ):
        rows = engine._states
        if not is_recorded:
            rows._settled[:] = [engine._cuda.event() for _ in rows._settled]
        engine.restore(engine.allocate(), fixed, caches)
        with nullcontext() if is_recorded else pytest.raises(AssertionError):
            engine.step([Feed(0, [16])])


def test_without_room_on_the_device_steps_wait(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(LIMITS, StateLayout.IN_PLACE) as engine:
        api = engine._cuda._api
        api.total_bytes = sum(map(len, api.device.values()))
        scenario(engine, is_awaited=True)
        assert "steps wait for states that are kept" in caplog.text
    with suppress(AssertionError), opened(LIMITS, StateLayout.IN_PLACE) as engine:
        api = engine._cuda._api
        api.total_bytes = sum(map(len, api.device.values()))
        without_await("read")(monkeypatch, engine._states)
        with pytest.raises(AssertionError):
            scenario(engine, is_awaited=True)


def test_memory_that_can_not_be_locked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(LIMITS, StateLayout.TWO_SIDES) as engine:
        slot = engine.allocate()
        engine.step([Feed(slot, [1, 2])])
        with monkeypatch.context() as patch:
            patch.setattr(engine._cuda._api, "cudaMallocHost", lambda size: (2, None))
            with pytest.raises(EnvironmentUnfitError, match="--prefix-cache-gib"):
                engine.save(slot)
        assert engine.step([Feed(slot, [3])])[0].argmax() == next_token([1, 2, 3], VOCAB)
        assert engine.save(slot).caches[0].num_tokens == 2
