"""What turns requests into tokens: our Scheduler, or a library that schedules for itself."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nemotrt.engines.runtime.engine import HasLimits, TakesAdapters
from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.errors import ConfigError, unknown_name


@dataclass(slots=True)
class SpeculationStats:
    """Counts since the start."""

    drafts: int = 0  # times that a sequence was fed guesses
    drafted_tokens: int = 0  # guesses that were fed
    accepted_tokens: int = 0  # of these, those that were chosen too


class Running(Protocol):
    """A request that runs: how much of its prompt is in, and what came out."""

    @property
    def num_fed(self) -> int:
        """Prompt tokens whose state is held."""

    @property
    def output(self) -> list[int]:
        """Tokens generated so far."""


class RequestScheduler(Protocol):
    """Requests in, tokens out; not thread-safe: one thread submits, cancels and steps."""

    @property
    def engine(self) -> HasLimits:
        """The engine below."""

    @property
    def running(self) -> Mapping[str, Running]:
        """The requests that hold state, by id."""

    @property
    def waiting(self) -> Collection[Request]:
        """The requests that wait for a slot, in order."""

    @property
    def kept(self) -> KeptStats | None:
        """What kept states did so far; None where none is kept."""

    @property
    def speculation(self) -> SpeculationStats | None:
        """What guesses did so far; None where nothing is guessed."""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to run or report."""

    def submit(self, request: Request) -> None:
        """Take a request.

        Raises:
            ConfigError: the engine can't run it (`check_request`), or its id is live.
        """

    def cancel(self, request_id: str) -> None:
        """End a request. An id that is not live is ignored: the request may just have ended."""

    def step(self) -> list[Update]:
        """Run one step of all requests; return an update for each that gained something.

        Raises:
            NemotrtError: the engine failed; every request is lost.
        """


@runtime_checkable
class SchedulesItself(Protocol):
    """An engine that takes whole requests, and batches them on its own."""

    def scheduler(self, tokenizer: Tokenizer | None, eos_ids: tuple[int, ...]) -> RequestScheduler:
        """Return its scheduler; `eos_ids` end a sequence, as do the tokenizer's."""


@runtime_checkable
class BreaksAlone(Protocol):
    """A scheduler whose engine may die between two steps, in a process of its own."""

    def when_broken(self, tell: Callable[[], None]) -> None:
        """Let another thread call `tell` once the engine is gone, unless it was closed."""

    def check(self) -> None:
        """Raise the NemotrtError that a step would raise, if the engine is gone."""


def check_request(request: Request, engine: HasLimits, tokenizer: Tokenizer | None) -> None:
    """Raise ConfigError unless `engine` can run the request.

    The prompt must not be empty or leave the vocabulary, and prompt and output must fit; stop
    strings need a tokenizer.
    """
    prompt, params = request.prompt, request.params
    if not prompt:
        raise ConfigError("the prompt is empty.")
    if not (min(prompt) >= 0 and max(prompt) < engine.vocab_size):
        raise ConfigError(f"prompt ids must be 0 to {engine.vocab_size - 1}.")
    params.check_ids(engine.vocab_size)
    planned, most = len(prompt) + params.max_tokens, engine.limits.max_seq_len
    if planned > most:
        raise ConfigError(
            f"prompt ({len(prompt)}) plus max_tokens ({params.max_tokens}) is {planned} "
            f"tokens; the engine holds {most}."
        )
    names = engine.adapters if isinstance(engine, TakesAdapters) else ()
    if request.adapter and not names:
        raise ConfigError(
            f"unknown adapter {request.adapter!r}: the engine was opened with none; see --lora."
        )
    if request.adapter and request.adapter not in names:
        raise unknown_name("adapter", request.adapter, names)
    if params.stop and tokenizer is None:
        raise ConfigError("stop strings need a tokenizer; use stop_token_ids.")
