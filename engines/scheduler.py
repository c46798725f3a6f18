"""In-flight batching over an Engine: requests join and leave between steps.

Each step feeds every decoding sequence its last token, and spends what is left of the step's token
budget on prompt chunks, oldest request first; a target for the time between tokens makes the chunks
beside decodes smaller. A sequence's state is planned when it is admitted,
so an admitted request always runs to its end.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from nemotrt.engines.draws import Draws, Turn, open_draws
from nemotrt.engines.engine import Engine, Feed
from nemotrt.engines.guide import FREE, Allowed, Broken, Complete, Forced, Rule
from nemotrt.engines.prompt_scores import MAX_LOGITS_PER_STEP, PromptScores
from nemotrt.engines.request import (
    NOT_FINITE,
    ErrorCode,
    FinishReason,
    Request,
    Token,
    Update,
)
from nemotrt.engines.request_scheduler import check_request
from nemotrt.engines.sampling import Choice
from nemotrt.engines.step_pace import StepPace
from nemotrt.engines.text_stream import TextStream
from nemotrt.engines.tokenizer import Tokenizer
from nemotrt.errors import ConfigError


@dataclass(slots=True)
class Sequence:
    """A request that holds a slot."""

    request: Request
    slot: int
    draw: Any  # the sampler's memory of it
    text: TextStream
    scores: PromptScores
    num_fed: int = 0  # prompt tokens that the engine has
    output: list[int] = field(default_factory=list)
    rule: Rule = FREE  # what the next token must be

    @property
    def is_decoding(self) -> bool:
        """Whether the whole prompt is in."""
        return self.num_fed == len(self.request.prompt)

    @property
    def planned_tokens(self) -> int:
        """Tokens that the sequence may come to hold."""
        return len(self.request.prompt) + self.request.params.max_tokens

    def show(self, token: int) -> tuple[str, str]:
        """Return the text of the token that has just come, and what may be shown now.

        A stop string counts once `min_tokens` are out, and never in what a guide forces.
        """
        is_early = len(self.output) < self.request.params.min_tokens
        return self.text.push(token, may_stop=not (is_early or isinstance(self.rule, Forced)))

    def follow(self, token: int, piece: str) -> None:
        """Tell the guide of a token, and take its next rule."""
        if self.request.guide is not None:
            self.request.guide.push(token, piece)
            self.rule = _rule(self.request)


class Scheduler:
    """Runs requests on an engine; not thread-safe: one thread submits, cancels and steps.

    Args:
        engine: where the sequences run.
        tokenizer: makes text and knows the end-of-sequence ids; None gives tokens without text.
        eos_ids: further ids that end a sequence.
        max_num_tokens: new tokens of all sequences in one step; default one chunk more than a
            full decode batch.
        max_held_tokens: tokens that the admitted sequences may come to hold together; default
            what the slots hold.
        draws: what chooses tokens; default compiled, on the engine's threads.
        target_itl_s: what a step should take that feeds prompts beside tokens that others wait
            for; default whatever max_num_tokens takes.
        clock: seconds, for the target.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer | None = None,
        *,
        eos_ids: tuple[int, ...] = (),
        max_num_tokens: int | None = None,
        max_held_tokens: int | None = None,
        draws: Draws | None = None,
        target_itl_s: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start with nothing to do."""
        limits = engine.limits
        self.engine = engine
        self.tokenizer = tokenizer
        self.eos_ids = tuple({*eos_ids, *(tokenizer.eos_ids if tokenizer else ())})
        self.max_num_tokens = max_num_tokens or limits.max_batch_size + limits.chunk_tokens
        self.max_held_tokens = max_held_tokens or limits.max_batch_size * limits.max_seq_len
        self.waiting: deque[Request] = deque()
        self.running: dict[str, Sequence] = {}
        self._ended: list[Update] = []
        self._draws = open_draws(engine) if draws is None else draws
        most = self.max_num_tokens
        self._pace = None if target_itl_s is None else StepPace(target_itl_s, most)
        self._clock = clock
        if self.max_num_tokens < limits.max_batch_size:
            raise ConfigError("max_num_tokens must be at least max_batch_size.")

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to run or report."""
        return not (self.waiting or self.running or self._ended)

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ConfigError: the prompt is empty, too long or out of the vocabulary, the request asks
                for more tokens than a sequence can hold, or its id is in use.
        """
        if request.request_id in self.running or any(
            other.request_id == request.request_id for other in self.waiting
        ):
            raise ConfigError(f"request id {request.request_id!r} is in use.")
        max_tokens = min(self.engine.limits.max_seq_len, self.max_held_tokens)
        check_request(request, self.engine, max_tokens, self.tokenizer)
        self.waiting.append(request)

    def cancel(self, request_id: str) -> None:
        """End a request; its slot is free at once. An unknown id is ignored: it has just ended."""
        for request in self.waiting:
            if request.request_id == request_id:
                self.waiting.remove(request)
                self._ended.append(Update(request_id, finish_reason=FinishReason.CANCELLED))
                return
        if request_id in self.running:
            self._end(self.running[request_id])
            self._ended.append(Update(request_id, finish_reason=FinishReason.CANCELLED))

    def step(self) -> list[Update]:
        """Admit, feed the engine once, sample; return what each request gained."""
        self._admit()
        updates, self._ended = self._ended, []
        fed = self._plan()
        if not fed:
            return updates
        start_s = self._clock()
        logits = self.engine.step([feed for _, feed in fed])
        self._learn(fed, self._clock() - start_s)
        due: list[tuple[Sequence, Turn]] = []
        done = 0
        for sequence, feed in fed:
            rows = logits[done : done + feed.num_logits]
            done += feed.num_logits
            if not sequence.is_decoding:
                if not sequence.scores.add(sequence.num_fed, rows, self._draws):
                    self._end(sequence)
                    updates.append(_not_finite(sequence))
                    continue
                sequence.num_fed += len(feed.tokens)
            if sequence.is_decoding:
                due.append((sequence, Turn(done - 1, sequence.draw, sequence.rule)))
        if due:
            choices = self._draws.choose(logits, [turn for _, turn in due])
            for (sequence, _), choice in zip(due, choices, strict=True):
                update = self._advance(sequence, choice)
                if prompt := sequence.scores.take():
                    update = replace(update, prompt=prompt)
                updates.append(update)
        return updates

    def _admit(self) -> None:
        """Give slots to waiting requests, in order, while the planned tokens fit."""
        planned = sum(sequence.planned_tokens for sequence in self.running.values())
        while self.waiting and len(self.running) < self.engine.limits.max_batch_size:
            request = self.waiting[0]
            planned += len(request.prompt) + request.params.max_tokens
            if planned > self.max_held_tokens:
                return
            self.waiting.popleft()
            rule = _rule(request)
            if isinstance(rule, Complete | Broken):  # nothing may come at all
                self._ended.append(_ended_at_once(request.request_id, rule))
                planned -= len(request.prompt) + request.params.max_tokens
                continue
            self.running[request.request_id] = Sequence(
                request,
                self.engine.allocate(),
                self._draws.open(request.params, request.prompt, self.eos_ids),
                TextStream(self.tokenizer, request.params.stop, request.trace),
                PromptScores(request.prompt, request.params.prompt_logprobs),
                rule=rule,
            )

    def _plan(self) -> list[tuple[Sequence, Feed]]:
        """Return this step's feeds: all decodes, then prompt chunks within the budget."""
        sequences = self.running.values()
        fed = [(s, Feed(s.slot, s.output[-1:])) for s in sequences if s.is_decoding]
        budget = self.max_num_tokens - len(fed)
        if fed and self._pace is not None:
            budget = min(budget, self._pace.tokens)
        rows_left = max(1, MAX_LOGITS_PER_STEP // self.engine.vocab_size)  # that score prompts
        for sequence in sequences:
            prompt, start = sequence.request.prompt, sequence.num_fed
            if sequence.is_decoding or budget == 0:
                continue
            size = min(len(prompt) - start, self.engine.limits.chunk_tokens, budget)
            num_logits = 1
            if sequence.scores.is_wanted:
                num_logits = size = min(size, rows_left)
                rows_left -= size
                if not size:
                    continue
            fed.append((sequence, Feed(sequence.slot, prompt[start : start + size], num_logits)))
            budget -= size
        return fed

    def _learn(self, fed: list[tuple[Sequence, Feed]], seconds: float) -> None:
        """Tell the pace of a step that fed prompts beside decodes."""
        if self._pace is None or not fed[0][0].is_decoding:
            return
        num_prompt = sum(len(feed.tokens) for sequence, feed in fed if not sequence.is_decoding)
        if num_prompt:
            self._pace.learn(num_prompt, seconds)

    def _advance(self, sequence: Sequence, choice: Choice | None) -> Update:
        """Take a token, and end the sequence if the token, its guide or a limit says so."""
        params = sequence.request.params
        if choice is None:
            self._end(sequence)
            return _not_finite(sequence)
        if params.max_tokens == 0:
            self._end(sequence)
            return Update(sequence.request.request_id, finish_reason=FinishReason.LENGTH)
        sequence.output.append(choice.token)
        # a mask has an end only where the text may end: there is nothing to ignore
        ignores_eos = params.ignore_eos and not isinstance(sequence.rule, Allowed)
        is_eos = choice.token in self.eos_ids and not ignores_eos
        ends = is_eos or choice.token in params.stop_token_ids
        piece, text = ("", "") if ends else sequence.show(choice.token)
        if not ends:
            sequence.follow(choice.token, piece)
        error = sequence.rule.reason if isinstance(sequence.rule, Broken) else ""
        reason = None
        if ends or sequence.text.is_stopped or isinstance(sequence.rule, Complete):
            reason = FinishReason.STOP
        elif error:
            reason = FinishReason.ERROR
        elif len(sequence.output) == params.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None:
            text += sequence.text.flush()
            if reason is FinishReason.LENGTH and sequence.text.is_stopped:
                reason = FinishReason.STOP
            self._end(sequence)
        token = Token(choice.token, piece, choice.logprob, choice.top_logprobs)
        return Update(sequence.request.request_id, (token,), text, reason, error)

    def _end(self, sequence: Sequence) -> None:
        """Free a sequence's slot."""
        del self.running[sequence.request.request_id]
        self.engine.release(sequence.slot)


def _rule(request: Request) -> Rule:
    """Return what the next token must be; a mask without a token is a fault, not token 0."""
    rule = FREE if request.guide is None else request.guide.rule()
    if isinstance(rule, Allowed) and rule.is_empty:
        return Broken("the guide allows no token.")
    return rule


def _not_finite(sequence: Sequence) -> Update:
    """Return the end of a request for which the engine computed no numbers."""
    return Update(
        sequence.request.request_id,
        text=sequence.text.flush(),
        finish_reason=FinishReason.ERROR,
        error=NOT_FINITE,
        error_code=ErrorCode.LOGITS_NOT_FINITE,
    )


def _ended_at_once(request_id: str, rule: Complete | Broken) -> Update:
    """Return the end of a request whose guide allows no first token."""
    if isinstance(rule, Broken):
        return Update(request_id, finish_reason=FinishReason.ERROR, error=rule.reason)
    return Update(request_id, finish_reason=FinishReason.STOP)
