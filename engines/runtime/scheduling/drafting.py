"""Guesses within a step: who is fed some, whose are right, and what the engine keeps of them."""

from collections.abc import Sequence

from nemotrt.engines.runtime.engine import Feed
from nemotrt.engines.runtime.request_scheduler import SpeculationStats
from nemotrt.engines.runtime.sampling.draws import Turn
from nemotrt.engines.runtime.scheduling.running_request import Draft, Gain, RunningRequest
from nemotrt.engines.runtime.speculation.speculation import Speculation

Fed = tuple[RunningRequest, Feed]


class Drafting:
    """Guesses in a scheduler's steps; with None nothing is guessed."""

    def __init__(self, speculation: Speculation | None) -> None:
        """Start with nobody guessed."""
        self.right: list[RunningRequest] = []  # whose guesses have been right in this step so far
        self._speculation = speculation

    @property
    def stats(self) -> SpeculationStats | None:
        """What guesses did so far; None where nothing is guessed."""
        return None if self._speculation is None else self._speculation.stats

    def with_guesses(self, fed: list[Fed], room: int) -> list[Fed]:
        """Return a step's feeds, decodes first, with what is guessed behind the decodes' tokens.

        `room` is for guesses: prompts have taken theirs, beside which one is worth less.
        """
        speculation = self._speculation
        if speculation is None or room <= 0:
            return fed
        asked = []
        for sequence, _ in fed:
            if sequence.is_decoding:
                sequence.guesser = sequence.guesser or speculation.begin(sequence.request)
                asked.append((sequence.guesser, sequence.output))
        found = speculation.guesses(asked, room)
        guessed = [_guessed(*item, more) for item, more in zip(fed, found, strict=False)]
        return guessed + fed[len(found) :]

    def settle(self, gains: Sequence[Gain]) -> None:
        """Tell whose guesses go on being right; have the engine keep what was right of others.

        Before a sequence ends, its state is as it would be without guesses.
        """
        self.right = []
        accepted: dict[int, int] = {}
        num_guesses = 0
        for gain in gains:
            sequence, draft = gain.sequence, gain.sequence.draft
            if draft is None:
                continue
            if gain.is_guessed:
                draft.num_right += 1
                self.right.append(sequence)
            else:
                accepted[sequence.place.slot] = draft.num_right
                num_guesses += len(draft.guesses)
                sequence.draft = None
        if self._speculation is not None and accepted:
            self._speculation.settle(accepted, num_guesses)

    def turns(self) -> list[Turn]:
        """Return the next turn of each whose guesses have been right."""
        return [
            Turn(sequence.draft.next_row, sequence.place.draw, sequence.rule)
            for sequence in self.right
            if sequence.draft is not None
        ]

    def took(self, fed: Sequence[Fed], seconds: float) -> None:
        """Note how long a step took that fed no prompt."""
        if self._speculation is not None and fed:
            self._speculation.took(sum(len(feed.tokens) for _, feed in fed), seconds)

    def ended(self, sequence: RunningRequest) -> None:
        """Remember the answer of a sequence that has ended well."""
        if self._speculation is not None:
            self._speculation.ended(sequence.request, sequence.output)


def _guessed(sequence: RunningRequest, feed: Feed, guesses: Sequence[int]) -> Fed:
    """Return a feed with guesses behind its token."""
    if not guesses:
        return sequence, feed
    sequence.draft = Draft(guesses)
    tokens = (*feed.tokens, *guesses)
    return sequence, Feed(feed.slot, tokens, len(tokens), is_draft=True)
