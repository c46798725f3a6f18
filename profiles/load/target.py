"""What the load driver asks of a target, and the fault of a single request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.profiles.load.exchange import Counting, Ending, Exchange, StepSample
from nemotrt.profiles.load.prompts import Chat, Prompt, PromptMaker


class TargetError(NemotrtError):
    """The target died, stalled, refused, or sent something else than was asked for.

    `retry_after_s` is when a server that has no room wants to be asked again, where it says so.
    """

    def __init__(self, message: str, ending: Ending, retry_after_s: float | None = None) -> None:
        """Keep the kind beside the message."""
        super().__init__(message)
        self.ending = ending
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class OpenAiApi:
    """A target's OpenAI-compatible endpoint, for another load generator.

    Attributes:
        is_chat: /v1/chat/completions, not /v1/completions.
        tokenizer: of the prompts.
        fields: what a request says beside model and prompt, by the answer's length.
    """

    url: str
    model: str
    is_chat: bool
    headers: Mapping[str, str]
    stall_timeout_s: float
    tokenizer: Tokenizer
    fields: Callable[[int], dict[str, Any]]


class Target(Protocol):
    """A thing that generates; used by one event loop.

    Attributes:
        steps: the engine's steps, of a target that records them.
        stamps_itself: arrivals have the target's own time, whatever the driver's loop does.
        openai: the endpoint, of a target that is one.
        maker: makes the texts of conversations, for a target that takes them.
    """

    steps: Sequence[StepSample] = ()
    stamps_itself: bool = False
    openai: OpenAiApi | None = None
    maker: PromptMaker | None = None

    @property
    def facts(self) -> Mapping[str, str | int]:
        """What the result says about the target: kind, address, model, limits."""

    def prompt(self, index: int, isl: int) -> Prompt:
        """Return prompt `index` in the form that `send` takes.

        Raises:
            ConfigError: the target's tokenizer can't make it.
        """

    def chat_prompt(self, chat: Chat) -> Prompt:
        """Return a conversation in the form that `send` takes.

        Raises:
            ConfigError: this target takes none.
        """
        raise ConfigError(
            f"conversations go to a chat endpoint, not to {self.facts['kind']}: give the server's "
            "OpenAI address with --protocol openai-chat, or an engine directory with a chat "
            "template."
        )

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


def check_complete(exchange: Exchange) -> None:
    """Raise TargetError unless the answer has the tokens that were asked for."""
    if exchange.num_output_tokens == exchange.osl:
        return
    reason = exchange.finish_reason and f" (finish reason {exchange.finish_reason!r})"
    told = ", by the tokenizer's count" if exchange.counting is Counting.TOKENIZER else ""
    raise TargetError(
        f"request {exchange.index} brought {exchange.num_output_tokens} tokens in "
        f"{len(exchange.arrivals_s)} responses where {exchange.osl} were asked for{told}{reason}.",
        Ending.WRONG_LENGTH,
    )
