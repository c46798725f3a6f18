"""In-flight batching over an Engine: requests join and leave between steps.

Each step feeds every decoding sequence its last token, and spends what is left of the step's token
budget on prompt chunks, oldest request first; a target for the time between tokens makes the chunks
beside decodes smaller. A sequence's state is planned when it is admitted, so an admitted request
always runs to its end.

Over a pipeline that is ahead, a step begins before the last one's tokens are known: text, stop
strings, guides and whatever the caller does with the updates run while the device computes. A
sequence that turns out to have ended has then been fed once more, which nobody sees: its row gets
no turn.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial

from nemotrt.engines.runtime.engine import CHOSEN, Engine, Feed
from nemotrt.engines.runtime.pipeline import open_pipeline
from nemotrt.engines.runtime.prompt_scores import MAX_LOGITS_PER_STEP, PromptScores
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.request_scheduler import check_request
from nemotrt.engines.runtime.running_request import Gain, RunningRequest, next_rules
from nemotrt.engines.runtime.sampling.draws import Draws, Turn
from nemotrt.engines.runtime.sampling.guide import Broken, Complete
from nemotrt.engines.runtime.state.kept.stats import KeptStats
from nemotrt.engines.runtime.step_pace import StepPace
from nemotrt.engines.text.text_stream import TextStream
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.errors import ConfigError


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
        draws: what chooses tokens on the host; default the engine's own way, or compiled.
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
        self.running: dict[str, RunningRequest] = {}
        self._ended: list[Update] = []
        self._pipeline = open_pipeline(engine, draws)
        self._chosen_s = 0.0  # when the last tokens were known
        self._due: list[RunningRequest] | None = None  # whose tokens are being chosen
        self._begun = (0.0, 0)  # when that step began, and its prompt tokens beside decodes
        most = self.max_num_tokens
        self._pace = None if target_itl_s is None else StepPace(target_itl_s, most)
        self._clock = clock
        if self.max_num_tokens < limits.max_batch_size:
            raise ConfigError("max_num_tokens must be at least max_batch_size.")

    @property
    def kept(self) -> KeptStats | None:
        """What kept states did so far; None where none is kept."""
        return None

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
        """Admit, feed the engine once, choose; return what each request gained.

        Over a pipeline that is ahead that is what the step before has chosen.
        """
        self._admit()
        updates, self._ended = self._ended, []
        fed = self._plan()
        start_s = self._clock()
        if fed:
            self._pipeline.begin([feed for _, feed in fed])
        updates += self._learn()  # of the step before, where the pipeline is ahead
        if fed:
            updates += self._choose(fed, start_s)
        if not self._pipeline.is_ahead:
            updates += self._learn()
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
            [rule] = next_rules([request])
            if isinstance(rule, Complete | Broken):  # nothing may come at all
                self._ended.append(_ended_at_once(request.request_id, rule))
                planned -= len(request.prompt) + request.params.max_tokens
                continue
            self.running[request.request_id] = RunningRequest(
                request,
                self._pipeline.open(request.params, request.prompt, self.eos_ids),
                TextStream(self.tokenizer, request.params.stop, request.trace),
                PromptScores(request.prompt, request.params.prompt_logprobs),
                rule=rule,
            )

    def _plan(self) -> list[tuple[RunningRequest, Feed]]:
        """Return this step's feeds: all decodes, then prompt chunks within the budget."""
        fed: list[tuple[RunningRequest, Feed]] = []
        for sequence in self.running.values():
            if sequence.is_decoding and not sequence.is_last_due:
                tokens = (CHOSEN,) if sequence.is_due else sequence.output[-1:]
                fed.append((sequence, Feed(sequence.place.slot, tokens)))
        budget = self.max_num_tokens - len(fed)
        if fed and self._pace is not None:
            budget = min(budget, self._pace.tokens)
        rows_left = max(1, MAX_LOGITS_PER_STEP // self.engine.vocab_size)  # that score prompts
        for sequence in self.running.values():
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
            chunk = prompt[start : start + size]
            fed.append((sequence, Feed(sequence.place.slot, chunk, num_logits)))
            budget -= size
        return fed

    def _choose(self, fed: list[tuple[RunningRequest, Feed]], start_s: float) -> list[Update]:
        """Have the tokens chosen that follow from the step's logits; return who failed."""
        failed: list[Update] = []
        turns: list[Turn] = []
        due: list[RunningRequest] = []
        num_rows = num_prompt = 0
        is_beside = fed[0][0].is_decoding  # other sequences wait for their tokens
        for sequence, feed in fed:
            first, num_rows = num_rows, num_rows + feed.num_logits
            if not self._is_live(sequence):
                continue  # it has ended while the step was under way
            if not sequence.is_decoding:
                score = partial(self._pipeline.score, first)
                if not sequence.scores.add(sequence.num_fed, feed.num_logits, score):
                    self._end(sequence)
                    failed.append(sequence.not_finite())
                    continue
                sequence.num_fed += len(feed.tokens)
                num_prompt += len(feed.tokens)
            if sequence.is_decoding:
                sequence.is_due = True
                due.append(sequence)
                turns.append(Turn(num_rows - 1, sequence.place.draw, sequence.rule))
        self._pipeline.choose(turns)
        self._due = due
        self._begun = (start_s, num_prompt if is_beside else 0)
        return failed

    def _learn(self) -> list[Update]:
        """Take the tokens that are being chosen, if any; return what they bring."""
        if self._due is None:
            return []
        choices = self._pipeline.chosen()
        self._tell_pace()
        due, self._due = self._due, None
        gains = [
            sequence.take(choice, self.eos_ids)
            for sequence, choice in zip(due, choices, strict=True)
            if self._is_live(sequence)  # else it was cancelled
        ]
        followed = [gain.sequence for gain in gains if gain.is_followed]
        found = next_rules(sequence.request for sequence in followed)
        for sequence, rule in zip(followed, found, strict=True):
            sequence.rule = rule
        return [self._conclude(gain) for gain in gains]

    def _conclude(self, gain: Gain) -> Update:
        """Return what a token brought, and free the slot if it was the last."""
        update = gain.sequence.conclude(gain)
        if update.finish_reason is not None:
            self._end(gain.sequence)
        return update

    def _is_live(self, sequence: RunningRequest) -> bool:
        """Whether the sequence has not ended since."""
        return self.running.get(sequence.request.request_id) is sequence

    def _tell_pace(self) -> None:
        """Tell the pace how long the step took whose tokens have just come."""
        start_s, num_prompt = self._begun
        now_s = self._clock()
        if self._pace is not None and num_prompt:
            self._pace.learn(num_prompt, now_s - max(start_s, self._chosen_s))
        self._chosen_s = now_s

    def _end(self, sequence: RunningRequest) -> None:
        """Free a sequence's slot."""
        del self.running[sequence.request.request_id]
        self._pipeline.release(sequence.place)


def _ended_at_once(request_id: str, rule: Complete | Broken) -> Update:
    """Return the end of a request whose guide allows no first token."""
    if isinstance(rule, Broken):
        return Update(request_id, finish_reason=FinishReason.ERROR, error=rule.reason)
    return Update(request_id, finish_reason=FinishReason.STOP)
