"""Kept states over the TensorRT runtime: every answer is that without them.

The plan's every step proves its state; streams do their work as late as CUDA may, or copies early.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.kept.test_reuse import NO_CHATS, RULES, asked, cached, expected, ids, run, storm

from nemotrt.build.check.kernels.sampler_cases import SETTINGS
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.draws.slot_tables import SlotTables
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.runtime.engine import KeepsState, Limits
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.reuse import KeepRules, Reuse
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.state.kept.prefix_cache import PrefixCache
from support.hash_plan import VOCAB, opened

ROOM = [0, 2000, 6000, 1 << 30]  # bytes


def keeping(engine: TensorRTEngine, limit: int, rules: KeepRules = NO_CHATS) -> Scheduler:
    return Scheduler(engine, reuse=Reuse(engine, PrefixCache(limit, engine.state_bytes), rules))


def test_the_engine_keeps_states() -> None:
    with opened(Limits(1, 8, 8), StateLayout.IN_PLACE) as engine:
        assert isinstance(engine, KeepsState)


def check_storm(data: st.DataObject, *, is_ahead: bool) -> None:
    """Any layout, with the steps' stream or the copies' in advance; never more is locked."""
    slots, chunk = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    layout, limit = data.draw(st.sampled_from(StateLayout)), data.draw(st.sampled_from(ROOM))
    how = {name: data.draw(st.booleans()) for name in ("is_dense", "is_early")}
    with opened(Limits(slots, 160, chunk), layout, is_ahead=is_ahead, **how) as engine:
        storm(data, keeping(engine, limit, data.draw(st.sampled_from([RULES, NO_CHATS]))), limit)
        memory = engine._states._memory
        assert memory.num_bytes <= memory._most_held <= limit


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_every_answer_is_that_without_kept_states(data: st.DataObject) -> None:
    check_storm(data, is_ahead=False)


@given(st.data())
@settings(max_examples=8, deadline=None)
def test_so_is_every_answer_of_a_pipeline_that_is_ahead(data: st.DataObject) -> None:
    check_storm(data, is_ahead=True)


def test_a_state_is_gone_before_one_takes_its_room() -> None:
    """Also where it was found for a request, which then begins at the newer one."""
    with opened(Limits(2, 160, 20), StateLayout.IN_PLACE) as engine:
        sizes, of_id = engine.state_bytes, 4
        limit = sizes.per_sequence + 40 * (sizes.per_token + of_id) + 2
        scheduler = keeping(engine, limit)
        stem = tuple(range(20))
        run(scheduler, [asked("first", (*stem, 1))])
        scheduler.submit(asked("long", (*stem, *[7] * 60)))
        scheduler.step()
        updates = run(scheduler, [asked("fork", (*stem, *[7] * 20, *[9] * 30))])
        assert cached(updates["fork"]) == 40
        assert engine._states._memory._most_held <= limit


def test_a_parked_state_is_gone_before_one_takes_its_room() -> None:
    with opened(Limits(2, 160, 20), StateLayout.IN_PLACE) as engine:
        sizes, of_id = engine.state_bytes, 4
        limit = sizes.of(40) + 40 * of_id
        scheduler = keeping(engine, limit)
        scheduler.submit(asked("low", (5,) * 30, 30, priority=5))
        for _ in range(3):
            scheduler.step()
        scheduler.submit(asked("high", (7, 7), 2))
        scheduler.submit(asked("long", tuple(range(40)) * 2, priority=1))
        scheduler.step()
        assert set(scheduler.running) == {"high", "long"}
        scheduler.step()
        assert set(scheduler.running) == {"long"}
        updates = run(scheduler, [asked("fork", (*range(40), *[9] * 30), priority=6)])
        assert cached(updates["fork"]) == 40
        assert engine._states._memory._most_held <= limit


@pytest.mark.parametrize("room", [0, 300, 900, 2000])
def test_what_can_not_be_locked_is_the_limit(
    room: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go on: fewer states are kept, and none gives up its slot without room."""
    with opened(Limits(1, 160, 20), StateLayout.TWO_SIDES) as engine:
        api = engine._cuda._api
        lock, most = api.cudaMallocHost, room + sum(map(len, api.host.values()))

        def limited(size: int) -> tuple[int, int | None]:
            is_full = sum(map(len, api.host.values())) + size > most
            return (2, None) if is_full else lock(size)

        monkeypatch.setattr(api, "cudaMallocHost", limited)
        scheduler = keeping(engine, 1 << 30)
        prompts = [tuple(range(n, n + 40)) for n in range(4)]
        for number, prompt in enumerate(prompts):
            scheduler.submit(asked(str(number), prompt, 20, priority=-number))
            scheduler.step()
        for number, updates in run(scheduler).items():
            assert ids(updates) == expected(prompts[int(number)], 20)[-len(ids(updates)) :]
        assert caplog.text.count("states are kept: the host can't lock") >= 1
        assert scheduler.kept is not None
        assert scheduler.kept.bytes <= scheduler.kept.limit_bytes < 1 << 30
        assert (scheduler.kept.states > 0) == (room > 900)


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


@pytest.mark.parametrize("is_guided", [pytest.param(False, marks=pytest.mark.slow), True])
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
