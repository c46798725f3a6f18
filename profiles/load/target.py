"""What the load driver asks of a target, and the one fault that ends a run."""

from collections.abc import Mapping
from typing import Protocol

from nemotrt.errors import NemotrtError
from nemotrt.profiles.load.exchange import Exchange
from nemotrt.profiles.load.prompts import Prompt


class TargetError(NemotrtError):
    """The target died, stalled, refused, or sent something else than was asked for."""


class Target(Protocol):
    """A thing that generates; used by one event loop."""

    @property
    def facts(self) -> Mapping[str, str | int]:
        """What the result says about the target: kind, address, model, limits."""

    def prompt(self, index: int, isl: int) -> Prompt:
        """Return prompt `index` in the form that `send` takes.

        Raises:
            ConfigError: the target's tokenizer can't make it.
        """

    async def open(self) -> None:
        """Connect.

        Raises:
            EnvironmentUnfitError: nothing answers, or it is not what it should be.
        """

    async def send(self, prompt: Prompt, exchange: Exchange) -> None:
        """Send the prompt, note the sending and every arrival, return at the end of the answer.

        Cancelling the task cancels the request.

        Raises:
            TargetError: the answer failed, stalled or broke off.
        """

    async def close(self) -> None:
        """Disconnect."""
