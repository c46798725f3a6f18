"""A pipeline that is a step ahead, over an engine on the host: it stands for a device's queue.

Nothing is done before somebody waits for it, as late as a device may, and only up to what is waited
for; tokens that are chosen are fed without the host.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nemotrt.engines.runtime.engine import CHOSEN, Feed
from nemotrt.engines.runtime.pipeline import HostPipeline, Place
from nemotrt.engines.runtime.sampling.draws import Turn, open_draws


class AheadPipeline:
    """Puts each call in a queue; counts rows of logits, turns, and feeds of unknown tokens."""

    is_ahead = True

    def __init__(self, engine: Any) -> None:
        self.host = HostPipeline(engine, open_draws(engine))
        self.queue: deque[Callable[[], None]] = deque()
        self.last: dict[int, int] = {}  # slot -> its last chosen token
        self.choices: list[list[Any]] = []
        self.num_rows = self.num_turns = self.num_unknown = 0

    def open(self, *arguments: Any) -> Place:
        self.finish()  # the host's engine has no slot before
        place = self.host.open(*arguments)
        return Place(place.slot, place)

    def release(self, place: Place) -> None:
        self.queue.append(lambda: self.host.release(place.draw))

    def park(self, place: Place) -> Any:
        self.finish()
        return self.host.park(place.draw)

    def resume(self, parked: Any) -> Place:
        self.finish()
        place = self.host.resume(parked)
        return Place(place.slot, place)

    def begin(self, feeds: Sequence[Feed]) -> None:
        self.num_rows += sum(feed.num_logits for feed in feeds)
        self.num_unknown += sum(feed.tokens[0] == CHOSEN for feed in feeds)
        self.queue.append(lambda: self.host.begin([self._known(feed) for feed in feeds]))

    def _known(self, feed: Feed) -> Feed:
        tokens = [self.last[feed.slot] if token == CHOSEN else token for token in feed.tokens]
        return Feed(feed.slot, tokens, feed.num_logits)

    def score(self, first: int, tokens: Sequence[int], num_top: int) -> list[Any]:
        self.finish()
        return self.host.score(first, tokens, num_top)

    def choose(self, turns: Sequence[Turn]) -> None:
        assert not self.choices, "the last choices were not taken"
        self.num_turns += len(turns)
        slots = [turn.draw.slot for turn in turns]
        turns = [replace(turn, draw=turn.draw.draw) for turn in turns]

        def choose() -> None:
            self.host.choose(turns)
            found = self.host.chosen()
            self.choices.append(found)
            for slot, choice in zip(slots, found, strict=True):
                self.last[slot] = 0 if choice is None else choice.token

        self.queue.append(choose)

    def chosen(self) -> list[Any]:
        """Do what the choice waits for, and nothing of the step that has begun since."""
        while not self.choices:
            self.queue.popleft()()
        return self.choices.pop()

    def finish(self) -> None:
        while self.queue:
            self.queue.popleft()()


class Ahead:
    """An engine that is driven so; `own` is the pipeline of its last scheduler."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.own = AheadPipeline(engine)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def save(self, *arguments: Any) -> Any:
        self.own.finish()  # a device copies behind what its stream has
        return self.engine.save(*arguments)

    def restore(self, *arguments: Any) -> None:
        self.own.finish()
        self.engine.restore(*arguments)

    def held_tokens(self, slot: int) -> int:
        self.own.finish()  # what is in the stream counts
        return int(self.engine.held_tokens(slot))

    def pipeline(self) -> AheadPipeline:
        self.own.finish()  # what the last one released
        self.own = AheadPipeline(self.engine)
        return self.own
