"""One request while it runs: what it was fed, and what becomes of each of its tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemotrt.engines.runtime.request import (
    NOT_FINITE,
    ErrorCode,
    FinishReason,
    Request,
    Token,
    Update,
)
from nemotrt.engines.runtime.sampling.guide import (
    FREE,
    Allowed,
    Broken,
    Complete,
    Forced,
    Rule,
    rules,
)
from nemotrt.engines.runtime.sampling.params import SampledToken
from nemotrt.engines.runtime.scheduling.prompt_scores import PromptScores
from nemotrt.engines.runtime.scheduling.reuse import Keeping
from nemotrt.engines.runtime.speculation.speculation import Guesser
from nemotrt.engines.text.text_stream import TextStream


@dataclass(slots=True)
class Draft:
    """Guesses that a sequence was fed behind its last token.

    Of the tokens that were fed `num_right` hold: the first always does.
    """

    guesses: Sequence[int]
    first_row: int = 0  # of the step's logits
    num_right: int = 1

    @property
    def next_row(self) -> int:
        """The logits after the last token that holds."""
        return self.first_row + self.num_right - 1


@dataclass(slots=True)
class RunningRequest:
    """A request that holds a slot."""

    request: Request
    place: Any  # the pipeline's: slot, and the sampler's memory
    text: TextStream
    scores: PromptScores
    num_fed: int = 0  # prompt tokens that the engine has
    output: list[int] = field(default_factory=list)
    keeping: Keeping | None = None  # where states are kept
    rule: Rule = FREE  # what the next token must be
    is_due: bool = False  # a token is being chosen
    guesser: Guesser | None = None  # where tokens are guessed
    draft: Draft | None = None  # of this step

    @property
    def is_decoding(self) -> bool:
        """Whether the whole prompt is in."""
        return self.num_fed == len(self.request.prompt)

    @property
    def next_stop(self) -> int:
        """Tokens of the prompt after which the next chunk must end: its state is kept there."""
        points = self.keeping.points if self.keeping is not None else ()
        return points[0] if points else len(self.request.prompt)

    @property
    def is_last_due(self) -> bool:
        """Whether the token that is being chosen ends the sequence, whatever it is."""
        return self.is_due and len(self.output) + 1 >= self.request.params.max_tokens

    def take(self, choice: SampledToken | None, eos_ids: tuple[int, ...]) -> "Gain":
        """Take a token, None where the logits were no numbers: its text, and the guide told."""
        self.is_due = False
        gain = Gain(self, choice)
        params = self.request.params
        if choice is None or params.max_tokens == 0:
            return gain
        self.output.append(choice.token)
        # a grammar's mask has an end only where the text may end: there is nothing to ignore
        is_held = isinstance(self.rule, Allowed) and not self.rule.is_free
        ignores_eos = params.ignore_eos and not is_held
        is_eos = choice.token in eos_ids and not ignores_eos
        gain.is_end = is_eos or choice.token in params.stop_token_ids
        if not gain.is_end:
            gain.piece, gain.text = self._show(choice.token)
            if self.request.guide is not None:
                self.request.guide.push(choice.token, gain.piece)
        return gain

    def _show(self, token: int) -> tuple[str, str]:
        """Return the text of the token that has just come, and what may be shown now.

        A stop string counts once `min_tokens` are out, and never in what a guide forces.
        """
        is_early = len(self.output) < self.request.params.min_tokens
        return self.text.push(token, may_stop=not (is_early or isinstance(self.rule, Forced)))

    def conclude(self, gain: "Gain") -> Update:
        """Return what a token brought: an end too, if it, the next rule or a limit says so."""
        choice, params = gain.choice, self.request.params
        if choice is None:
            return self.not_finite()
        name, prompt, cached = self.request.request_id, self.scores.take(), self._take_cached()
        if params.max_tokens == 0:
            end = FinishReason.LENGTH
            return Update(name, finish_reason=end, prompt=prompt, cached_tokens=cached)
        error = self.rule.reason if isinstance(self.rule, Broken) else ""
        reason, text = None, gain.text
        if gain.is_end or self.text.is_stopped or isinstance(self.rule, Complete):
            reason = FinishReason.STOP
        elif error:
            reason = FinishReason.ERROR
        elif len(self.output) == params.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None:
            text += self.text.flush()
            if reason is FinishReason.LENGTH and self.text.is_stopped:
                reason = FinishReason.STOP
        token = Token(choice.token, gain.piece, choice.logprob, choice.top_logprobs)
        return Update(name, (token,), text, reason, error, prompt=prompt, cached_tokens=cached)

    def _take_cached(self) -> int | None:
        """Return how many tokens of the prompt were kept, once."""
        is_first = len(self.output) <= 1
        return self.keeping.num_found if self.keeping is not None and is_first else None

    def not_finite(self) -> Update:
        """Return the end of a request for which the engine computed no numbers."""
        return Update(
            self.request.request_id,
            text=self.text.flush(),
            finish_reason=FinishReason.ERROR,
            error=NOT_FINITE,
            error_code=ErrorCode.LOGITS_NOT_FINITE,
        )


@dataclass(slots=True)
class Gain:
    """A sequence's token, and the text that it brought."""

    sequence: RunningRequest
    choice: SampledToken | None
    piece: str = ""
    text: str = ""
    is_end: bool = False  # of the sequence, and no text

    @property
    def is_guessed(self) -> bool:
        """Whether the token was guessed and the sequence goes on, once the next rule is known."""
        sequence = self.sequence
        draft, choice = sequence.draft, self.choice
        if draft is None or choice is None or draft.num_right > len(draft.guesses):
            return False
        if choice.token != draft.guesses[draft.num_right - 1]:
            return False
        is_over = self.is_end or sequence.text.is_stopped
        return not (is_over or isinstance(sequence.rule, Complete | Broken))

    @property
    def is_followed(self) -> bool:
        """Whether another token may come."""
        may_come = self.sequence.request.params.max_tokens > 0
        return self.choice is not None and not self.is_end and may_come


def next_rules(requests: Iterable[Request]) -> list[Rule]:
    """Return what each one's next token must be; a mask without a token is a fault, not token 0."""
    guides = [request.guide for request in requests]
    found = iter(rules([guide for guide in guides if guide is not None]))
    return [FREE if guide is None else _checked(next(found)) for guide in guides]


def _checked(rule: Rule) -> Rule:
    if isinstance(rule, Allowed) and rule.is_empty:
        return Broken("the guide allows no token.")
    return rule
