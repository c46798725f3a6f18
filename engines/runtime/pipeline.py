"""Between scheduler and engine: a step, the choices that follow from it, and when each is known.

A step calls `begin`, `choose` and `chosen` once each, in this order. An engine on the host computes
in `begin` and knows the tokens at once. For a device that chooses tokens itself, `begin` only puts
the work into a queue. Such a device may be one step ahead, so that it never waits for what the host
does with a token. The host then learns the tokens one step later. What a sequence computed past its
end is dropped.
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
        """Return the place of a new sequence: its `slot` in the engine, and its sampler's memory.

        Args:
            params: how its tokens are chosen.
            prompt: token ids, which the repetition penalty counts.
            ends: token ids that may not come before `min_tokens` are out.

        Raises:
            ConfigError: no slot is free.
        """

    def release(self, place: Any) -> None:
        """Free a place; a step that fed it may still run."""

    def park(self, place: Any) -> Any:
        """Save a sequence's state on the host, free its slot, and return what `resume` needs.

        No token of the sequence is due. The engine is one that keeps states.
        """

    def resume(self, parked: Any) -> Any:
        """Return a place that goes on where the parked sequence stopped.

        Raises:
            ConfigError: no slot is free.
        """

    def begin(self, feeds: Sequence[Feed]) -> None:
        """Begin a step; its rows of logits stand feed after feed, as Engine.step gives them."""

    def score(self, first: int, tokens: Sequence[int], num_top: int) -> list[Score | None]:
        """Return the log-probabilities of `tokens` by the step's rows from `first` on, one each.

        It waits for the step. A row that is not finite gives None.
        """

    def choose(self, turns: Sequence[Turn]) -> None:
        """Choose the next token of each sequence from its row of the step; `turns` may be empty."""

    def chosen(self) -> list[SampledToken | None]:
        """Return the tokens that were chosen last, in the order of the turns; call it once.

        It waits for them. A row that is not finite gives None.
        """


@runtime_checkable
class HasPipeline(Protocol):
    """An engine that chooses tokens where its state is."""

    def pipeline(self) -> Pipeline | None:
        """Return its pipeline; None if this machine can't run it."""


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
