"""Kept states on the TensorRT runtime, over a plan whose every step proves its state.

The streams of CUDA's stand-in do their work as late as CUDA may; or the copies as early.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.kept.test_reuse import NO_CHATS, RULES, ids, run, storm

from nemotrt.build.check.kernels.sampler_cases import SETTINGS
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, bytes_at
from nemotrt.engines.backends.tensorrt.device.page_locked import PageLocked
from nemotrt.engines.backends.tensorrt.device.stream import Stream
from nemotrt.engines.backends.tensorrt.draws.draws import DeviceDraws
from nemotrt.engines.backends.tensorrt.draws.slot_tables import SlotTables
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from nemotrt.engines.backends.tensorrt.run import engine as engine_module
from nemotrt.engines.backends.tensorrt.run.arrivals import Arrivals
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.backends.tensorrt.run.kept_rows import KeptRows
from nemotrt.engines.backends.tensorrt.run.state_tensors import StateTensor
from nemotrt.engines.runtime.engine import Feed, KeepsState, Limits
from nemotrt.engines.runtime.kept_state import PIECE_TOKENS, FixedState, first_tokens, last_tokens
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.reuse import KeepRules, Reuse
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.state.kept.prefix_cache import PrefixCache
from nemotrt.errors import EnvironmentUnfitError
from support import cuda_stand_in
from support.emulated_draws import SMALL, QueuedKernels
from support.emulated_kernels import emulated_set
from support.hash_engine import next_token
from support.hash_plan import VOCAB, open_hash_plan

layouts = st.sampled_from(StateLayout)


class Loaded(QueuedKernels):
    def load(self) -> None:
        """Nothing: the emulator has them."""


@contextmanager
def opened(
    limits: Limits,
    layout: StateLayout,
    *,
    is_ahead: bool = False,
    is_early: bool = False,
    **more: Any,
) -> Iterator[TensorRTEngine]:
    """Open an engine, which chooses tokens itself where it `is_ahead`; all is freed then."""
    cuda = cuda_stand_in.Cuda(is_early=is_early)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        kernels = Loaded(cuda, emulated_set(SAMPLER))
        patch.setattr(engine_module, "open_sampler_library", lambda capability: kernels)
        patch.setattr(engine_module, "DeviceDraws", partial(DeviceDraws, **SMALL._asdict()))
        if not is_ahead:
            patch.setattr(TensorRTEngine, "pipeline", lambda engine: None)
        engine, _ = open_hash_plan(Path(folder), limits, layout, cuda, **more)
        yield engine
        engine.close()
    assert not cuda.device and not cuda.host and not cuda.events and not cuda.streams


def keeping(
    engine: TensorRTEngine, limit: int, rules: KeepRules = NO_CHATS, *, is_halved: bool = False
) -> Scheduler:
    cache = PrefixCache(limit, engine.state_bytes, is_halved=is_halved)
    return Scheduler(engine, reuse=Reuse(engine, cache, rules))


def test_the_engine_keeps_states() -> None:
    with opened(Limits(1, 8, 8), StateLayout.IN_PLACE) as engine:
        assert isinstance(engine, KeepsState)


@given(st.data(), layouts, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_every_answer_is_that_without_kept_states(
    data: st.DataObject, layout: StateLayout, is_ahead: bool, is_dense: bool, is_early: bool
) -> None:
    slots, chunk = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    limit = data.draw(st.sampled_from([0, 2000, 6000, 1 << 30]))
    how = {"is_ahead": is_ahead, "is_dense": is_dense, "is_early": is_early}
    with opened(Limits(slots, 160, chunk), layout, **how) as engine:
        storm(data, keeping(engine, limit, data.draw(st.sampled_from([RULES, NO_CHATS]))), limit)
        memory = engine._states._memory
        assert memory.num_bytes <= memory._most_held <= limit


# Copies and steps in an order


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


# What is read and written


@given(st.data(), layouts, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_row_comes_back_as_it_was(
    data: st.DataObject, layout: StateLayout, is_early: bool
) -> None:
    """Any sizes, numbers, phases, cuts and halves, into any row."""
    api = cuda_stand_in.Cuda(is_early=is_early)
    cuda, num_rows = Cuda(api), 3
    sizes, few = st.sampled_from([1, 2, 4]), st.integers(1, 3)
    heads, capacity, depth = data.draw(few), data.draw(st.integers(1, 600)), data.draw(few)
    shapes = {"conv": ((data.draw(few), 3), data.draw(sizes)), "ssm": ((2, data.draw(few)), 4)}
    shapes = dict(list(shapes.items())[: data.draw(st.integers(0, 2))])
    shapes |= {f"{x}_cache": ((heads, capacity, depth), data.draw(sizes)) for x in "kv"}
    layers = data.draw(few)
    tensors = [StateTensor(k, n, *shapes[k]) for n in range(layers) for k in shapes]
    rows = KeptRows(cuda, tensors, num_rows, layout, layout.scratch_rows(num_rows, 4))
    for _ in range(data.draw(st.integers(0, 5))):
        first = data.draw(st.integers(0, num_rows - 1))
        some = range(first, data.draw(st.integers(first + 1, num_rows)))
        rows.bindings(some, is_prompt=False)
        rows.written(some, is_prompt=False)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))

    def fill(row: int, *, only_fixed: bool = False) -> dict[str, np.ndarray]:
        """Enqueue other numbers for a row, as a step would; return them."""
        found = {}
        for tensor in tensors:
            if only_fixed and tensor.is_cache:
                continue
            values = random.integers(0, 256, tensor.row_bytes).astype(np.uint8)
            if tensor.item_bytes == 4:  # float16 holds these
                values = random.integers(-9, 9, tensor.row).astype(np.float32).view(np.uint8)
            pinned = cuda.host_array((tensor.row_bytes,), np.uint8)
            pinned[:] = found[tensor.name] = values.reshape(-1)
            cuda.to_device(rows.address(tensor, row, rows.phase[row]), pinned)
        return found

    source, target = data.draw(st.permutations(range(num_rows)))[:2]
    held = data.draw(st.integers(0, capacity))
    start = data.draw(st.integers(0, held))
    was = fill(source)
    before, saved = rows.read(source, 0, start), rows.read(source, start, held)
    fill(source, only_fixed=True)  # a step
    caches = (*before.caches, *saved.caches)
    assert all(piece.num_tokens <= PIECE_TOKENS for piece in caches)
    for at in data.draw(st.lists(st.integers(0, held), max_size=2)):
        caches = (*first_tokens(caches, at), *last_tokens(caches, at))
    assert sum(piece.num_tokens for piece in caches) == held
    fixed = saved.fixed.halved() if data.draw(st.booleans()) else saved.fixed
    del before, saved  # what nobody holds is written over
    rows.clear(source, capacity)
    rows.clear(target, capacity)
    rows.write(target, fixed, caches)
    del fixed, caches
    rows.read(source, 0, capacity)
    rows.bindings(range(target, target + 1), is_prompt=False)
    cuda.synchronize()
    for tensor in tensors:
        raw = bytes_at(rows.address(tensor, target, rows.phase[target]), tensor.row_bytes)
        wanted = was[tensor.name].copy()
        if tensor.is_cache:
            by_token = wanted.reshape(heads, capacity, -1)
            by_token[:, held:] = 0
        np.testing.assert_array_equal(raw, wanted)
    cuda.close()
    assert not api.host and not api.device


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
@settings(max_examples=60, deadline=None)
def test_memory_is_locked_for_what_is_held_and_used_again(turns: list[tuple[int, bool]]) -> None:
    api = cuda_stand_in.Cuda()
    cuda = Cuda(api)
    memory = PageLocked(cuda, cuda.another_stream())
    held: list[np.ndarray] = []
    most = 0
    for size, is_freed in turns:
        if is_freed and held:
            held.pop(size % len(held))
            continue
        number = len(held)
        piece = memory.take(3 * size)
        piece[...] = number
        held.append(piece.view(np.int8).reshape(3, size)[1:])  # a part keeps the whole
        most = max(most, sum(3 * part.shape[1] for part in held))
        assert memory.num_bytes == sum(map(len, api.host.values())) <= most
        del piece
    places = sorted((part.ctypes.data, part.nbytes) for part in held)
    for (first, size), (second, _) in itertools.pairwise(places):
        assert first + size <= second or not size
    held.clear()
    before = memory.num_bytes
    again = [memory.take(size) for size, free in [*memory._free.items()] for _ in [*free]]
    assert memory.num_bytes == before == sum(map(len, again))
    cuda.close()


# Sequences that give up their slots


class Allows:
    """A guide: any of some tokens, then any at all, then one."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def rule(self) -> Rule:
        kind = len(self.tokens) % 5
        if kind == 4:
            return Forced(len(self.tokens))
        return FREE if kind == 3 else Allowed(np.arange(VOCAB) % (2 + kind) == 0)

    def push(self, token: int, text: str) -> None:
        self.tokens.append(token)


@pytest.mark.parametrize("is_guided", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_parked_sequence_goes_on_as_if_it_had_not_been(name: str, is_guided: bool) -> None:
    """With every setting of the sampler, in another slot, after others have used its own."""

    def low() -> list[Request]:
        params = [SamplingParams(seed=i, max_tokens=24, **SETTINGS[name]) for i in range(2)]
        return [
            Request(f"low{i}", (1 + i, 2, 3), p, Allows() if is_guided else None, priority=5 - i)
            for i, p in enumerate(params)
        ]

    found: list[dict[str, list[int]]] = []
    for is_parked in (False, True):
        with opened(Limits(2, 60, 16), StateLayout.ROTATING, is_ahead=True) as engine:
            scheduler = keeping(engine, 1 << 20)
            updates: dict[str, list[Update]] = {}
            for request in low():
                scheduler.submit(request)
            for _ in range(9):
                for update in scheduler.step():
                    updates.setdefault(update.request_id, []).append(update)
            if is_parked:
                high = SamplingParams(
                    seed=9, max_tokens=5, repetition_penalty=1.5, logit_bias=((3, 1.0),)
                )
                more = replace(high, max_tokens=3, frequency_penalty=0.5)
                scheduler.submit(Request("high0", (7, 7), high))
                scheduler.submit(Request("high1", (8, 8), more))
            for request_id, own in run(scheduler).items():
                updates.setdefault(request_id, []).extend(own)
            found.append({key: ids(own) for key, own in updates.items() if "low" in key})
            assert scheduler.kept is not None
            assert scheduler.kept.preemptions == (2 if is_parked else 0)
    assert found[0] == found[1]
    assert {len(tokens) for tokens in found[0].values()} == {24}


def test_tables_that_are_left_behind_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotTables, "put", lambda tables, draw, held: None)
    with pytest.raises(AssertionError):
        test_a_parked_sequence_goes_on_as_if_it_had_not_been("penalties", is_guided=False)
