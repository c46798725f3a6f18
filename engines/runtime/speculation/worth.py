"""How many guesses are worth their time: by how often they were right, and what a step takes.

Nothing is assumed of the machine: where memory holds a step up, tokens beside the first cost
little and many are guessed; where arithmetic does, or the batch is large, few or none.
"""

import heapq
from collections.abc import Mapping, Sequence

# How often a guess is right, by the bits of the number of tokens that agree before it, from 2 on.
# Source: the shipped texts, `benchmarks/speculation.py`, 2026-11-30: between prose and JSON.
BEFORE = {2: 0.5, 3: 0.7, 4: 0.8, 5: 0.85, 6: 0.9}
WEIGHT = 4.0  # of what is known before, in guesses
MEMORY = 64.0  # guesses after which the first counts a third
STEPS = 32.0  # steps after which the first counts a third
MARGIN = 1.2  # what a guess must promise over its cost, which is roughly known; chosen
FIRST_COST = 0.08  # of a step's time for each further token, until it is measured
FIRST_WEIGHT = 2.0  # of that, in tokens squared


class Record:
    """How often guesses came true, by how many tokens agreed before them."""

    def __init__(self, before: "Record | None" = None) -> None:
        """Start from what another record has found; without one, from the shipped texts."""
        self._before = before
        self._tried = dict.fromkeys(BEFORE, 0.0)
        self._right = dict.fromkeys(BEFORE, 0.0)

    def note(self, length: int, *, is_right: bool) -> None:
        """Note a guess behind `length` tokens that agreed."""
        bits = _bits(length)
        kept = 1 - 1 / MEMORY
        self._tried[bits] = self._tried[bits] * kept + 1
        self._right[bits] = self._right[bits] * kept + is_right
        if self._before is not None:
            self._before.note(length, is_right=is_right)

    def chance(self, length: int) -> float:
        """Return the chance of a guess behind `length` tokens that agree."""
        bits = _bits(length)
        known = BEFORE[bits] if self._before is None else self._before.chance(length)
        return (known * WEIGHT + self._right[bits]) / (WEIGHT + self._tried[bits])

    def chances(self, length: int, count: int) -> list[float]:
        """Return the chances that guesses in a row are reached and right."""
        found, all_right = [], 1.0
        for further in range(count):
            all_right *= self.chance(length + further)
            found.append(all_right)
        return found


def _bits(length: int) -> int:
    return min(max(length.bit_length(), min(BEFORE)), max(BEFORE))


class StepCost:
    """What a step takes by its tokens: a line through the steps of late."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._weight = self._tokens = self._seconds = 0.0  # sums, and those of squares
        self._tokens_tokens = self._tokens_seconds = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """Note a step; one that the system has held up counts as twice what was to be expected."""
        if self._weight:
            mean, usual = self._tokens / self._weight, self._seconds / self._weight
            seconds = min(seconds, 2 * usual * max(1.0, tokens / mean))
        kept = 1 - 1 / STEPS
        self._weight = self._weight * kept + 1
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + seconds
        self._tokens_tokens = self._tokens_tokens * kept + tokens * tokens
        self._tokens_seconds = self._tokens_seconds * kept + tokens * seconds

    def share(self, tokens: float) -> float:
        """Return what one token more takes, as a share of a step of so many."""
        if not self._weight:
            return FIRST_COST
        mean, seconds = self._tokens / self._weight, self._seconds / self._weight
        spread = self._tokens_tokens - self._tokens * mean
        common = self._tokens_seconds - self._tokens * seconds
        first = FIRST_COST * seconds
        slope = max(0.0, (common + FIRST_WEIGHT * first) / (spread + FIRST_WEIGHT))
        step = max(seconds + slope * (tokens - mean), slope * tokens)  # its tokens at least
        return slope / step if step > 0 else 0.0


def worthwhile(
    chances: Mapping[int, Sequence[float]], num_sequences: int, most: int, cost: StepCost
) -> dict[int, int]:
    """Return how many guesses each sequence takes, so that most tokens come in a second.

    Args:
        chances: of each sequence's guesses, in their order, to be reached and right.
        num_sequences: that get a token in the step anyway.
        most: guesses of all together.
        cost: what a step takes.
    """
    taken = dict.fromkeys(chances, 0)
    line = [(-own[0], name) for name, own in chances.items() if own]
    heapq.heapify(line)
    expected, tokens = float(num_sequences), num_sequences
    while line and most > 0:
        chance, name = heapq.heappop(line)
        if -chance / expected <= MARGIN * cost.share(tokens):
            break
        expected, tokens, most = expected - chance, tokens + 1, most - 1
        taken[name] += 1
        if taken[name] < len(chances[name]):
            heapq.heappush(line, (-chances[name][taken[name]], name))
    return taken
