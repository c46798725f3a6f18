"""What goes into the scheduler and what comes out of it."""

from dataclasses import dataclass, field
from enum import StrEnum

from nemotrt.engines.runtime.sampling.guide import Guide
from nemotrt.engines.runtime.sampling.params import SamplingParams, Score
from nemotrt.engines.text.reasoning import Trace
from nemotrt.engines.text.text_stream import TextStream
from nemotrt.engines.text.tokenizer import Tokenizer


class FinishReason(StrEnum):
    """Why a request ended; the values are OpenAI's where it has one."""

    STOP = "stop"  # end-of-sequence token, stop token or stop string
    LENGTH = "length"  # max_tokens, or the engine's max_seq_len
    CANCELLED = "cancelled"
    ERROR = "error"


class ErrorCode(StrEnum):
    """What kind of fault ended a request; clients and metrics see it."""

    ENGINE_FAILED = "engine_failed"
    LOGITS_NOT_FINITE = "logits_not_finite"


NOT_FINITE = "the engine's logits are not finite: NaN or infinity among them."


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how to continue it; `request_id` is the caller's, unique among the live ones.

    `guide` may force or forbid tokens; it belongs to this request alone. `trace` is where the
    prompt leaves a reasoning trace: stop strings end the answer alone, never the trace. CLOSED
    makes everything the answer. `salt` says whose kept states the request may use and leave: those
    of the same salt and adapter. `priority` is for preemption; a lower one goes first. `adapter` is
    one that the engine was opened with; "" is none.
    """

    request_id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    guide: Guide | None = None
    trace: Trace = Trace.CLOSED
    salt: str = ""
    priority: int = 0
    adapter: str = ""

    @property
    def pool(self) -> str:
        """Whose kept states and earlier answers these are: of one salt, of one adapter.

        No two pairs have one pool: what begins with a zero character names an adapter's length.
        """
        if not (self.adapter or self.salt.startswith("\0")):
            return self.salt
        return f"\0{len(self.adapter)}:{self.adapter}{self.salt}"

    def text_stream(self, tokenizer: Tokenizer | None) -> TextStream:
        """Return the text of the request's tokens, still empty."""
        return TextStream(
            tokenizer,
            self.params.stop,
            self.trace,
            show_stop=self.params.include_stop_str_in_output,
            skip_special_tokens=self.params.skip_special_tokens,
        )


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    Attributes:
        id: in the vocabulary.
        text: what it adds to the text; "" while a character is incomplete.
        logprob: its natural log-probability; None unless asked for.
        top_logprobs: (token id, log-probability) of the likeliest tokens, highest first.
    """

    id: int
    text: str
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PromptToken:
    """One token of the prompt; nothing comes before the first one, so that has no score."""

    id: int
    score: Score | None


@dataclass(frozen=True, slots=True)
class Update:
    """What one step brought a request; `text` never holds part of a stop string or a character.

    `prompt` is the whole prompt, once, with the first token or the end, if its log-probabilities
    were asked for. `cached_tokens` come likewise: how many of the prompt's tokens were not computed
    since their state was kept; None where no state is kept.
    """

    request_id: str
    tokens: tuple[Token, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    error: str = ""
    error_code: ErrorCode = ErrorCode.ENGINE_FAILED  # with finish_reason `error` alone
    prompt: tuple[PromptToken, ...] = ()
    cached_tokens: int | None = None
