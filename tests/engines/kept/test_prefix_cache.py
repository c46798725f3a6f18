"""The prefix cache against a plain list of the texts that were kept."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.runtime.kept_state import (
    PIECE_TOKENS,
    CachedTokens,
    FixedState,
    SavedState,
    StateBytes,
)
from nemotrt.engines.runtime.request import PromptToken
from nemotrt.engines.runtime.state.kept.prefix_cache import ID_BYTES, PrefixCache
from nemotrt.engines.runtime.state.kept.prefix_tree import KeptScores, nodes
from nemotrt.errors import EnvironmentUnfitError

FIXED = 40  # bytes of a state, as int64
PER_TOKEN = 8
SIZES = StateBytes(FIXED, PER_TOKEN)
DENSE = StateBytes(0, PER_TOKEN)
texts = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def ids(text: list[int]) -> np.ndarray:
    return np.array(text, np.int32)


def saved(text: list[int], start: int, *, is_dense: bool = False) -> SavedState:
    """A state that is its text, whose caches are the tokens; in pieces as engines give them."""
    numbers = np.array(text, np.int64)
    fixed = () if is_dense else (np.full(FIXED // 8, hash(tuple(text)) % 1000),)
    starts = range(start, len(text), PIECE_TOKENS)
    caches = [
        CachedTokens((part.copy(),), len(part), (0,))
        for part in (numbers[a : a + PIECE_TOKENS] for a in starts)
    ]
    return SavedState(FixedState(fixed), tuple(caches))


def held_bytes(cache: PrefixCache) -> int:
    """The bytes of all arrays, and of ids, counted again."""
    found = 0
    for tree in cache._roots.values():
        for node in nodes(tree):
            found += len(node.ids) * ID_BYTES
            found += sum(array.nbytes for piece in node.caches for array in piece.arrays)
            found += 0 if node.fixed is None else node.fixed.num_bytes
    return found


@settings(deadline=None, max_examples=60)
@given(st.data(), st.booleans())
def test_what_is_found_was_kept(data: st.DataObject, is_dense: bool) -> None:
    limit = data.draw(st.sampled_from([0, 60, 200, 500, 10_000]))
    cache = PrefixCache(limit, DENSE if is_dense else SIZES)
    kept: set[tuple[str, tuple[int, ...]]] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        text, salt = data.draw(texts), data.draw(st.sampled_from(["", "a"]))
        if data.draw(st.booleans()) and cache.keep(
            salt, ids(text), lambda a, t=text: saved(t, a, is_dense=is_dense)
        ):
            kept.add((salt, tuple(text)))
        found = cache.find(salt, ids(text))
        assert found.num_tokens < len(text)
        tokens = [token for piece in found.caches for token in piece.arrays[0].tolist()]
        assert tokens == text[: found.num_tokens]
        if found.num_tokens and not is_dense:
            assert (salt, tuple(text[: found.num_tokens])) in kept
            assert found.fixed.arrays[0][0] == hash(tuple(tokens)) % 1000
        if limit == 10_000:  # nothing was dropped: the longest there is
            own = [other for name, other in kept if name == salt]
            cut = [tuple(text[:n]) for n in range(1, len(text))]
            if is_dense:
                cut = [part for part in cut if any(o[: len(part)] == part for o in own)]
            longest = max((len(part) for part in cut if is_dense or part in own), default=0)
            assert found.num_tokens == longest
        assert cache.stats.bytes == held_bytes(cache) <= limit
        assert cache.stats.states == sum(
            node.fixed is not None for tree in cache._roots.values() for node in nodes(tree)
        )


def test_a_conversation_holds_each_token_once() -> None:
    cache = PrefixCache(1 << 20, SIZES)
    text = list(itertools.islice(itertools.cycle(range(50)), 2000))
    for size in (100, 700, 1500, 2000):
        assert cache.keep("", ids(text[:size]), lambda a, n=size: saved(text[:n], a))
    assert cache.stats.bytes == 4 * FIXED + 2000 * (PER_TOKEN + ID_BYTES)
    assert cache.keep("", ids(text[:300]), lambda a: saved(text[:300], a))  # cuts an edge
    assert cache.stats.bytes == 5 * FIXED + 2000 * (PER_TOKEN + ID_BYTES)


def test_what_was_not_used_for_long_goes_first() -> None:
    each = FIXED + 10 * (PER_TOKEN + ID_BYTES)
    cache = PrefixCache(3 * each, SIZES)
    for first in range(3):
        cache.keep("", ids([first] * 10), lambda a, t=first: saved([t] * 10, a))
    assert cache.find("", ids([0] * 11)).num_tokens == 10  # used again
    cache.keep("", ids([3] * 10), lambda a: saved([3] * 10, a))
    assert [cache.find("", ids([t] * 11)).num_tokens for t in range(4)] == [10, 0, 10, 10]
    assert cache.stats.evictions == 1


def test_a_state_without_room_drops_nothing() -> None:
    cache = PrefixCache(300, SIZES)
    cache.keep("", ids([1] * 10), lambda a: saved([1] * 10, a))

    def never(start: int) -> SavedState:
        raise AssertionError("taken without room")

    assert not cache.keep("", ids([2] * 100), never)
    assert cache.find("", ids([1] * 11)).num_tokens == 10
    assert not cache.can_hold(100)
    assert cache.can_hold(10)


def test_a_state_that_can_t_be_taken_leaves_no_caches_behind() -> None:
    """Its room cost the state that it would have gone on from, whose caches serve nobody now."""
    cache = PrefixCache(300, SIZES)
    cache.keep("", ids([1] * 10), lambda a: saved([1] * 10, a))

    def no_memory(start: int) -> SavedState:
        raise EnvironmentUnfitError("no memory")

    with pytest.raises(EnvironmentUnfitError):
        cache.keep("", ids([1] * 20), no_memory)
    assert cache.stats.bytes == held_bytes(cache) == 0
    assert cache.keep("", ids([2] * 20), lambda a: saved([2] * 20, a))


def test_reserved_bytes_are_not_free() -> None:
    cache = PrefixCache(300, SIZES)
    cache.keep("", ids([1] * 10), lambda a: saved([1] * 10, a))
    assert cache.reserve(200)
    assert cache.stats.bytes == 200  # the state went for it
    assert not cache.keep("", ids([1] * 10), lambda a: saved([1] * 10, a))
    assert not cache.reserve(101)
    cache.free(200)
    assert cache.stats.bytes == 0
    assert cache.keep("", ids([1] * 10), lambda a: saved([1] * 10, a))


def test_forgotten_states_are_found_no_more() -> None:
    cache = PrefixCache(10_000, SIZES)
    for size in (2, 5, 9):
        cache.keep("", ids([1] * size), lambda a, n=size: saved([1] * n, a))
    cache.keep("", ids([1, 1, 2]), lambda a: saved([1, 1, 2], a))
    cache.forget("", ids([1] * 6))
    assert cache.find("", ids([1] * 20)).num_tokens == 9  # no prefix of what was wrong
    assert cache.find("", ids([1] * 7)).num_tokens == 0
    assert cache.find("", ids([1, 1, 2, 0])).num_tokens == 3
    assert cache.stats.bytes == held_bytes(cache)


def test_scores_serve_a_text_that_goes_on_alike() -> None:
    cache = PrefixCache(10_000, SIZES)
    tokens = tuple(PromptToken(token, None) for token in (1, 2, 3))  # the next one's too
    scores = KeptScores(0, tokens)
    cache.keep("", ids([1, 2]), lambda a: saved([1, 2], a), scores)
    assert cache.find("", ids([1, 2, 3, 4]), 0).scores == tokens
    assert cache.find("", ids([1, 2, 4, 4]), 0).num_tokens == 0  # another token: no score of it
    assert cache.find("", ids([1, 2, 3, 4]), 5).num_tokens == 0  # another number of likeliest
    assert cache.find("", ids([1, 2, 4, 4])).num_tokens == 2


@pytest.mark.parametrize("value", [65504.0, 1e6])
def test_halved_states_are_float16_where_that_holds_them(value: float) -> None:
    state = FixedState((np.array([value, 0.1], np.float32), np.array([7], np.int64)))
    first, second = state.halved().arrays
    assert first.dtype == (np.float16 if value < 65505 else np.float32)
    assert first[0] == value
    assert second.dtype == np.int64
