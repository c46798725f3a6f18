"""What is guessed, and how much of it is worth its time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.runtime.speculation.history import History
from nemotrt.engines.runtime.speculation.lookup import BOUNDARY, MAX_MATCH, NOWHERE, Places, Pointer
from nemotrt.engines.runtime.speculation.options import AUTO_GUESSES, MOST_GUESSES, num_guesses
from nemotrt.engines.runtime.speculation.worth import Record, StepCost, worthwhile
from nemotrt.errors import ConfigError

texts = st.lists(st.integers(0, 3), max_size=60)


def agreed(known: list[int], place: int, text: list[int]) -> int:
    """Return how many tokens before a place are those at the text's end."""
    count = 0
    while count < min(place, len(text)) and known[place - 1 - count] == text[-1 - count]:
        count += 1
    return count


@given(texts, texts)
def test_a_place_that_is_found_agrees_as_far_as_it_says(known: list[int], text: list[int]) -> None:
    places = Places()
    places.extend(known)
    place, length = places.find(text)
    if place != NOWHERE:
        assert 0 < place < len(known)
        assert length == min(agreed(known, place, text), MAX_MATCH)
        assert length >= 2
    else:  # of all places: no pair of tokens agrees, but at the end, which nothing follows
        assert all(agreed(known, other, text) < 2 for other in range(len(known)))


@given(st.lists(st.integers(0, 50), min_size=3, max_size=40, unique=True), st.integers(1, 20))
def test_a_text_that_is_said_again_is_found_and_goes_on(text: list[int], most: int) -> None:
    places = Places()
    places.extend(text)
    place, length = places.find(text[:2])
    assert (place, length) == (2, 2)
    assert Pointer(places, place, length).tokens(most)[: len(text) - 2] == text[2:][:most]


def test_a_text_that_goes_round_is_guessed_past_its_end() -> None:
    places = Places()
    places.extend([9, 1, 2, 3, 1, 2, 3])
    place, length = places.find(places.tokens)
    assert (place, length) == (4, 3)
    assert Pointer(places, place, length).tokens(8) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_no_guess_goes_from_one_answer_into_the_next() -> None:
    history = History()
    history.add("a", [1, 2, 3])
    history.add("a", [4, 5])
    places = history.of("a")
    assert places is not None
    assert places.tokens == [1, 2, 3, BOUNDARY, 4, 5, BOUNDARY]
    assert Pointer(places, places.find([1, 2])[0], 2).tokens(9) == [3]
    assert places.find([3, 4]) == (NOWHERE, 0)
    assert history.of("b") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=30))
def test_a_history_has_the_last_answers_within_its_bounds(answers: list[tuple[str, int]]) -> None:
    history = History(max_tokens=60, max_each=24)
    for number, (salt, count) in enumerate(answers):
        history.add(salt, [number] * count)
        places = history.of(salt)
        assert places is not None
        kept = min(count, 11)
        assert places.tokens[-kept - 1 :] == [*[number] * kept, BOUNDARY]
        sizes = [len(own.tokens) for own in map(history.of, "abc") if own is not None]
        assert max(sizes) <= 24
        assert history.num_tokens == sum(sizes) <= 60


def test_what_comes_true_is_trusted_and_what_does_not_is_not() -> None:
    record, shared = Record(), Record()
    own = Record(shared)
    assert record.chances(2, 3) == pytest.approx([0.5, 0.5 * 0.5, 0.5 * 0.5 * 0.7])
    for _ in range(20):
        own.note(9, is_right=False)
    assert own.chance(9) < 0.05
    assert shared.chance(9) < 0.2
    assert own.chance(2) == 0.5
    for _ in range(400):
        own.note(9, is_right=True)
    assert own.chance(9) > 0.95


def line(base_ms: float, token_ms: float, sizes: list[int]) -> StepCost:
    cost = StepCost()
    for size in sizes:
        cost.note(size, (base_ms + token_ms * size) / 1e3)
    return cost


def test_the_cost_of_a_token_is_measured() -> None:
    cost = line(10, 0.5, [1, 8, 1, 8, 1, 8])
    assert cost.share(1) == pytest.approx(0.5 / 10.5, rel=0.2)
    assert cost.share(8) == pytest.approx(0.5 / 14, rel=0.2)


def test_one_step_that_was_held_up_changes_little() -> None:
    cost = line(10, 0.5, [1, 8] * 10)
    before = cost.share(1)
    cost.note(8, 5.0)
    assert cost.share(1) < before + 0.1


@given(
    st.floats(0.1, 20),
    st.floats(0.01, 5),
    st.integers(1, 16),
    st.sampled_from([0.2, 0.6, 0.85, 0.98]),
)
def test_guesses_are_as_many_as_pay(
    base_ms: float, token_ms: float, batch: int, chance: float
) -> None:
    """No other number for all yields much more tokens a second, by what was measured."""

    def rate(count: int) -> float:
        tokens = batch * sum(chance**power for power in range(count + 1))
        return tokens / (base_ms + token_ms * batch * (1 + count))

    cost = line(base_ms, token_ms, [batch, batch + 8, batch + 64] * 20)
    chances = {number: [chance**power for power in range(1, 16)] for number in range(batch)}
    taken = worthwhile(chances, batch, 1000, cost)
    assert set(taken) == set(range(batch))
    assert max(taken.values()) - min(taken.values()) <= 1
    assert rate(max(taken.values())) > 0.9 * max(map(rate, range(16)))


def test_the_surest_guesses_have_the_room_there_is() -> None:
    cost = line(10, 0.01, [1, 8] * 10)
    taken = worthwhile({0: [0.9, 0.8, 0.7], 1: [0.75, 0.1], 2: []}, 3, 3, cost)
    assert taken == {0: 2, 1: 1, 2: 0}


@pytest.mark.parametrize(("word", "expected"), [("auto", AUTO_GUESSES), ("off", 0), ("7", 7)])
def test_words_for_a_number_of_guesses(word: str, expected: int) -> None:
    assert num_guesses(word) == expected


@pytest.mark.parametrize("word", ["", "on", "0", "-1", "1.5", "³", str(MOST_GUESSES + 1)])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="auto, off or 1 to 32"):
        num_guesses(word)
