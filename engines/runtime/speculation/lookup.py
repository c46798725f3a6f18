"""Where the last tokens of a text stood before, and what followed them there.

Pairs of tokens lead to the places where they stood, the latest first, as in LZ77: of the latest
few the one that agrees with the text furthest back is followed. More than four change nothing, nor
would a suffix automaton, which knows all: of source code that is written again with edits, JSON and
prose, 8.1, 5.3 and 1.2 tokens a step of at most 9 are right with 4, 8 and 32 places.
Source: `benchmarks/speculation.py`, 2026-11-30.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NUM_PLACES = 4  # that are compared, the latest ones
MAX_MATCH = 32  # tokens that are compared: whatever agrees so far is as good as certain
BOUNDARY = -1  # between two texts
NOWHERE = -1
PAIR = 1 << 32


class Places:
    """The tokens of one text or several, and where each pair of them stood."""

    def __init__(self) -> None:
        """Start empty."""
        self.tokens: list[int] = []
        self._latest: dict[int, int] = {}  # of a pair: the place behind it
        self._before = array("i")  # of each place: the one before of the same pair

    def extend(self, tokens: Iterable[int]) -> None:
        """Add tokens at the end."""
        known, latest, before = self.tokens, self._latest, self._before
        last = known[-1] if known else BOUNDARY
        place = len(known)
        for token in tokens:
            place += 1
            pair = last * PAIR + token
            if last == BOUNDARY or token == BOUNDARY:
                before.append(NOWHERE)
            else:
                before.append(latest.get(pair, NOWHERE))
                latest[pair] = place
            known.append(token)
            last = token

    def find(self, text: Sequence[int]) -> tuple[int, int]:
        """Return the place behind what agrees with a text's end, and in how many tokens.

        The text's own end is no such place. Without one: NOWHERE and 0.
        """
        best, length = NOWHERE, 0
        if len(text) < 2:
            return best, length
        place = self._latest.get(text[-2] * PAIR + text[-1], NOWHERE)
        for _ in range(NUM_PLACES):
            if place == NOWHERE:
                break
            if place < len(self.tokens):
                agreed = self._agreed(text, place)
                if agreed > length:
                    best, length = place, agreed
            place = self._before[place - 1]
        return best, length

    def _agreed(self, text: Sequence[int], place: int) -> int:
        """Return how many tokens before a place are those at a text's end."""
        known, most = self.tokens, min(place, len(text), MAX_MATCH)
        length = 2
        while length < most and known[place - 1 - length] == text[-1 - length]:
            length += 1
        return length


@dataclass(slots=True)
class Pointer:
    """A place that a text follows, and in how many tokens they agree."""

    places: Places
    place: int
    length: int

    @property
    def next_token(self) -> int:
        """The token that stands there; BOUNDARY at the end."""
        tokens = self.places.tokens
        return tokens[self.place] if self.place < len(tokens) else BOUNDARY

    def tokens(self, most: int) -> list[int]:
        """Return what follows; past the text's own end it repeats itself."""
        known = self.places.tokens
        found: list[int] = []
        end = len(known)
        for at in range(self.place, self.place + most):
            token = known[at] if at < end else found[at - end]
            if token == BOUNDARY:
                break
            found.append(token)
        return found
