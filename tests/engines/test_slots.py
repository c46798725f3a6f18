"""Slots over state buffers: what a slot has been fed is its own, wherever its row lies."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.state.slots import Slots
from nemotrt.engines.runtime.state.state_pool import StateBuffer, StatePool
from nemotrt.errors import ConfigError

LIMITS = Limits(max_batch_size=4, max_seq_len=12, chunk_tokens=3)


@settings(deadline=None)
@given(st.data())
def test_a_slot_s_state_is_its_own(data: st.DataObject) -> None:
    """Against a list of tokens for each slot: a cache by token, and a sum as a whole state."""
    cache, total = StateBuffer.zeros(4, (2, 12), 1), StateBuffer.zeros(4, (1,))
    slots = Slots(LIMITS, 9, StatePool([cache, total]))
    expected: dict[int, list[int]] = {}
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["allocate", "release", "step", "step"]))
        if what == "allocate" and len(expected) < 4:
            expected[slots.allocate()] = []
        elif what == "release" and expected:
            slot = data.draw(st.sampled_from(sorted(expected)))
            slots.release(slot)
            del expected[slot]
        elif what == "step" and expected:
            chosen = data.draw(st.sets(st.sampled_from(sorted(expected)), min_size=1))
            tokens = st.lists(st.integers(1, 8), min_size=1, max_size=3)
            feeds = [
                Feed(slot, data.draw(tokens)) for slot in data.draw(st.permutations(sorted(chosen)))
            ]
            if any(len(expected[feed.slot]) + len(feed.tokens) > 12 for feed in feeds):
                with pytest.raises(ConfigError, match="was built for 12"):
                    slots.check(feeds)
                continue
            slots.check(feeds)
            first, ordered = slots.gather(feeds)
            assert [slots.row_of(feed) for feed in ordered] == [*range(first, first + len(feeds))]
            for row, feed in enumerate(ordered, first):
                held = slots.held_tokens(feed.slot)
                cache.array[row, :, held : held + len(feed.tokens)] = feed.tokens
                total.array[row] += sum(feed.tokens)
                expected[feed.slot] += feed.tokens
            slots.advance(feeds)
    for slot in range(4):
        own, row = expected.get(slot, []), slots.row_of(Feed(slot, ()))
        assert slots.held[slot] == len(own)
        np.testing.assert_array_equal(cache.array[row], [own + [0] * (12 - len(own))] * 2)
        assert total.array[row, 0] == sum(own)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ([Feed(0, [1]), Feed(0, [2])], "fed twice"),
        ([Feed(1, [1])], "slot 1 is not allocated"),
        ([Feed(-1, [1])], "slot -1 is not allocated"),
        ([Feed(0, [])], "takes 1 to 3"),
        ([Feed(0, [1] * 4)], "takes 1 to 3"),
        ([Feed(0, [1, 2], 3)], "num_logits must be 1 to 2, got 3"),
        ([Feed(0, [9])], "must be 0 to 8"),
        ([Feed(0, [-1])], "must be 0 to 8"),
    ],
)
def test_what_no_step_takes(feeds: Any, message: str) -> None:
    slots = Slots(LIMITS, 9, StatePool())
    slots.allocate()
    with pytest.raises(ConfigError, match=message):
        slots.check(feeds)
