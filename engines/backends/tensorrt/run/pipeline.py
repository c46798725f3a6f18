"""Steps and choices on the GPU, one step ahead of the host: all of it is enqueued on one stream.

A step's tokens are chosen by kernels behind the plan, and the next step takes its ids from where
they wrote them. So the stream has the next step before the host has read a token of this one. Rows
of logits leave the device only where a prompt's or a token's log-probabilities are asked for.

Not executed on a GPU by its authors: tests run it over stand-ins that do the stream's work as late
as CUDA may.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.draws.draws import DeviceDraws
from nemotrt.engines.runtime.engine import CHOSEN, Feed, KeepsState, pieces
from nemotrt.engines.runtime.pipeline import ParkedPlace, Place
from nemotrt.engines.runtime.sampling.draws import Draws, Turn
from nemotrt.engines.runtime.sampling.params import Floats, SampledToken, SamplingParams, Score

Chosen = Callable[[int, Sequence[int]], None]  # ids of a batch on the device, its slots


class Enqueues(KeepsState, Protocol):
    """An engine whose steps can be put in the stream and waited for apart."""

    def check(self, feeds: Sequence[Feed]) -> None:
        """Raise ConfigError unless the engine can take `feeds` in one step."""

    def enqueue(
        self, feeds: Sequence[Feed], first_row: int = 0, chosen: Chosen | None = None
    ) -> list[int]:
        """Put feeds in the stream; return the row of the logits of each.

        Args:
            feeds: what `check` accepts.
            first_row: of the logits; later rows are the next feeds'.
            chosen: puts the tokens of slots, -1 for none, where the ids of a batch are: for feeds
                of CHOSEN.
        """

    def fetch(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Wait for what is enqueued; return rows of the logits, [len(rows), vocab]."""

    def logits_address(self, row: int = 0) -> int:
        """Return where a row of the logits lies on the device."""


class TensorRTPipeline:
    """The Pipeline of an open plan."""

    is_ahead = True

    def __init__(self, engine: Enqueues, draws: DeviceDraws, scorer: Draws) -> None:
        """Take the plan, the kernels that choose on the same stream, and what scores rows here."""
        self._engine = engine
        self._draws = draws
        self._scorer = scorer
        self._device_row: dict[int, int] = {}  # a feed's last row of the step -> on the device
        self._scored: dict[int, Floats] = {}  # a feed's first row of the step -> its rows

    def open(self, params: SamplingParams, prompt: Sequence[int], ends: tuple[int, ...]) -> Place:
        """Return a free slot, and its tables on the device."""
        slot = self._engine.allocate()
        return Place(slot, self._draws.open(slot, params, prompt, ends))

    def release(self, place: Place) -> None:
        """Free the slot; its state is cleared behind what the stream has."""
        self._engine.release(place.slot)

    def park(self, place: Place) -> ParkedPlace:
        """Take the slot's tables and its state to the host, and free it."""
        draw = self._draws.park(place.draw)
        saved = self._engine.save(place.slot)
        self._engine.release(place.slot)
        return ParkedPlace(saved, draw)

    def resume(self, parked: ParkedPlace) -> Place:
        """Bring both to a free slot."""
        slot = self._engine.allocate()
        self._engine.restore(slot, parked.saved.fixed, parked.saved.caches)
        return Place(slot, self._draws.resume(parked.draw, slot))

    def begin(self, feeds: Sequence[Feed]) -> None:
        """Enqueue a step; one that brings many rows for a sequence waits for each of them."""
        self._engine.check([_known(feed) for feed in feeds])
        self._device_row.clear()
        self._scored.clear()
        single = [feed for feed in feeds if feed.num_logits == 1]
        device_rows = iter(self._engine.enqueue(single, chosen=self._draws.feed))
        first, spare = 0, len(single)
        for feed in feeds:
            last = first + feed.num_logits - 1
            if feed.num_logits == 1:
                self._device_row[last] = next(device_rows)
            else:
                self._scored[first] = self._rows(feed, spare)
                self._device_row[last] = spare
                spare += 1
            first = last + 1

    def _rows(self, feed: Feed, row: int) -> Floats:
        """Run a feed token by token over a row of the logits; return all that it brings."""
        rows = []
        for piece in pieces(feed):
            self._engine.enqueue([piece], row)
            rows.append(self._engine.fetch([row])[0].copy())
        return np.stack(rows)

    def score(self, first: int, tokens: Sequence[int], num_top: int) -> list[Score | None]:
        """Return what a feed's rows, whose first is `first`, say of tokens."""
        rows = self._scored.get(first)
        if rows is None:
            rows = self._engine.fetch([self._device_row[first]])
        return self._scorer.score(rows, tokens, num_top)

    def choose(self, turns: Sequence[Turn]) -> None:
        """Enqueue the choice."""
        rows = [replace(turn, row=self._device_row[turn.row]) for turn in turns]
        self._draws.choose(self._engine.logits_address(), rows)

    def chosen(self) -> list[SampledToken | None]:
        """Wait for the choice; the step behind it goes on."""
        return self._draws.chosen()


def _known(feed: Feed) -> Feed:
    """Return the feed with a token in the place of one that the host need not know."""
    return replace(feed, tokens=(0,)) if tuple(feed.tokens) == (CHOSEN,) else feed
