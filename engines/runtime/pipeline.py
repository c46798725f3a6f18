"""Between scheduler and engine: a step, the choices that follow from it, and when each is known.

`begin`, `choose`, `chosen`, once each a step and in this order. An engine on the host computes in
`begin` and knows the tokens at once. A device that chooses tokens itself only has the work put in
its queue: it may be a step ahead, so that it never waits for what the host does with a token. The
host learns tokens one step behind then, and what a sequence computed past its end is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from nemotrt.engines.runtime.engine import Engine, Feed, KeepsState
from nemotrt.engines.runtime.kept_state import SavedState
from nemotrt.engines.runtime.sampling.draws import Draws, Turn, open_draws
from nemotrt.engines.runtime.sampling.params import Floats, SampledToken, SamplingParams, Score


class Pipeline(Protocol):
    """Runs steps and chooses tokens; not thread-safe."""

    @property
    def is_ahead(self) -> bool:
        """Whether a step may begin before the last one's choices are known.

        A feed of CHOSEN is then the token that was chosen last for its slot.
        """

    def open(self, params: SamplingParams, prompt: Sequence[int], ends: tuple[int, ...]) -> Any:
        """Return a sequence's place: its `slot` of the engine, and the sampler's memory of it.

        Raises:
            ConfigError: no slot is free.
        """

    def release(self, place: Any) -> None:
        """Free a place, also while a step that fed it has not ended."""

    def park(self, place: Any) -> Any:
        """Free the slot of a place of which nothing is due; return what `resume` needs.

        Only of an engine that keeps states.
        """

    def resume(self, parked: Any) -> Any:
        """Return a place that goes on where a parked one was.

        Raises:
            ConfigError: no slot is free.
        """

    def begin(self, feeds: Sequence[Feed]) -> None:
        """Begin a step; its rows of logits stand feed after feed, as Engine.step gives them."""

    def score(self, first: int, tokens: Sequence[int], num_top: int) -> list[Score | None]:
        """Return what the step's rows from `first` on say of these tokens; waits for the step."""

    def choose(self, turns: Sequence[Turn]) -> None:
        """Choose the next tokens of sequences, each from its row of the step; maybe of none."""

    def chosen(self) -> list[SampledToken | None]:
        """Return what was chosen last, in the order of the turns, once; waits for it."""


@runtime_checkable
class HasPipeline(Protocol):
    """An engine that chooses tokens where its state is."""

    def pipeline(self) -> Pipeline | None:
        """Return its pipeline; None where this machine can't have it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A slot of an engine, and what the sampler keeps of its sequence."""

    slot: int
    draw: Any


@dataclass(frozen=True, slots=True)
class ParkedPlace:
    """A sequence without a slot: its state on the host, and what the sampler keeps of it."""

    saved: SavedState
    draw: Any


class HostPipeline:
    """An engine that gives logits to the host, which chooses."""

    is_ahead = False

    def __init__(self, engine: Engine, draws: Draws) -> None:
        """Take what computes and what chooses."""
        self._engine = engine
        self._draws = draws
        self._logits: Floats
        self._choices: list[SampledToken | None] = []

    def open(self, params: SamplingParams, prompt: Sequence[int], ends: tuple[int, ...]) -> Place:
        """Return a free slot, and a sampler."""
        return Place(self._engine.allocate(), self._draws.open(params, prompt, ends))

    def release(self, place: Place) -> None:
        """Free the slot."""
        self._engine.release(place.slot)

    def park(self, place: Place) -> ParkedPlace:
        """Save the slot's state and free it."""
        assert isinstance(self._engine, KeepsState)
        saved = self._engine.save(place.slot)
        self._engine.release(place.slot)
        return ParkedPlace(saved, place.draw)

    def resume(self, parked: ParkedPlace) -> Place:
        """Restore the state in a free slot."""
        assert isinstance(self._engine, KeepsState)
        slot = self._engine.allocate()
        self._engine.restore(slot, parked.saved.fixed, parked.saved.caches)
        return Place(slot, parked.draw)

    def begin(self, feeds: Sequence[Feed]) -> None:
        """Run the step."""
        self._logits = self._engine.step(feeds)

    def score(self, first: int, tokens: Sequence[int], num_top: int) -> list[Score | None]:
        """Return what rows of the step say of tokens."""
        return self._draws.score(self._logits[first:], tokens, num_top)

    def choose(self, turns: Sequence[Turn]) -> None:
        """Choose at once."""
        self._choices = self._draws.choose(self._logits, turns) if turns else []

    def chosen(self) -> list[SampledToken | None]:
        """Return the choices."""
        choices, self._choices = self._choices, []
        return choices


def open_pipeline(engine: Engine, draws: Draws | None = None) -> Pipeline:
    """Return an engine's own pipeline, or one on the host.

    Args:
        engine: what computes.
        draws: what chooses on the host; default what fits the engine.
    """
    own = engine.pipeline() if draws is None and isinstance(engine, HasPipeline) else None
    return own or HostPipeline(engine, open_draws(engine) if draws is None else draws)
