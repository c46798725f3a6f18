"""One request that TensorRT-LLM has, and what a step brings it."""

from collections.abc import Collection
from dataclasses import dataclass, field

from nemotrt.engines.backends.tensorrt_llm.process.news import TokenLogprobs
from nemotrt.engines.backends.tensorrt_llm.sampling import read_logprobs
from nemotrt.engines.runtime.request import FinishReason, PromptToken, Request, Token
from nemotrt.engines.runtime.sampling.guide import FREE, Forced
from nemotrt.engines.runtime.sampling.thinking_budget import ThinkingBudget
from nemotrt.engines.runtime.scheduling.prompt_scores import PromptScores
from nemotrt.engines.text.text_stream import TextStream
from nemotrt.errors import ConfigError


@dataclass(slots=True)
class Gain:
    """What one step brings a request, while it is put together."""

    tokens: list[Token] = field(default_factory=list)
    text: str = ""
    reason: FinishReason | None = None
    prompt: tuple[PromptToken, ...] = ()
    cached_tokens: int | None = None


@dataclass(slots=True)
class LLMRequest:
    """A request that the LLM has."""

    request: Request
    text: TextStream
    scores: PromptScores
    number: int = -1  # of its stream
    output: list[int] = field(default_factory=list)
    num_scored: int = 0  # tokens of the prompt whose logits have come
    cached_tokens: int | None = None  # of the prompt, once they are known

    @property
    def num_left(self) -> int:
        """Tokens that it may still gain."""
        return self.request.params.max_tokens - len(self.output)

    @property
    def forced(self) -> int | None:
        """The token that must come next, None where the model is free."""
        guide = self.request.guide
        rule = FREE if guide is None else guide.rule()
        return rule.token if isinstance(rule, Forced) else None

    @property
    def num_fed(self) -> int:
        """Prompt tokens that are known to be in: all, once a token has come."""
        return len(self.request.prompt) if self.output else 0

    def add(self, token: int, found: TokenLogprobs, gain: Gain, eos_ids: Collection[int]) -> None:
        """Take a token, with what was found of its log-probabilities; say so if it ends the text.

        `eos_ids` end it unless the request ignores them.
        """
        request = self.request
        is_eos = token in eos_ids and not request.params.ignore_eos
        is_end = is_eos or token in request.params.stop_token_ids
        may_stop = self.forced is None and len(self.output) + 1 >= request.params.min_tokens
        piece, text = ("", "") if is_end else self.text.push(token, may_stop=may_stop)
        self.output.append(token)
        if request.guide is not None:
            request.guide.push(token, piece)
        logprob, top = read_logprobs(found, token, request.params.logprobs)
        gain.tokens.append(Token(token, piece, logprob, top))
        gain.text += text
        if is_end or self.text.is_stopped:
            gain.reason = FinishReason.STOP


def check_guide(request: Request) -> None:
    """Raise ConfigError for what can't be steered from outside of the LLM."""
    if request.guide is None:
        return
    if not isinstance(request.guide, ThinkingBudget):
        raise ConfigError(
            "backend tensorrt-llm has no guided decoding and no bad_words; leave out "
            "guided_decoding_guide_type and bad_words."
        )
    params = request.params
    if params.prompt_logprobs is not None:
        raise ConfigError(
            "backend tensorrt-llm closes a trace by a second request with a longer prompt: "
            "prompt_logprobs exclude max_thinking_tokens."
        )
    if params.presence_penalty or params.frequency_penalty:
        raise ConfigError(
            "backend tensorrt-llm closes a trace by a second request, which knows not what the "
            "first one said: presence_penalty and frequency_penalty exclude max_thinking_tokens."
        )
