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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from nemotrt.engines.runtime.engine import CHOSEN, Engine, Feed, TakesAdapters
from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.engines.runtime.pipeline import open_pipeline
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.request_scheduler import SpeculationStats, check_request
from nemotrt.engines.runtime.sampling.draws import Draws, Turn
from nemotrt.engines.runtime.scheduling.drafting import Drafting
from nemotrt.engines.runtime.scheduling.prompt_scores import MAX_LOGITS_PER_STEP
from nemotrt.engines.runtime.scheduling.reuse import Reuse
from nemotrt.engines.runtime.scheduling.running_request import Gain, RunningRequest, next_rules
from nemotrt.engines.runtime.scheduling.slot_holders import SlotHolders
from nemotrt.engines.runtime.scheduling.step_pace import StepPace
from nemotrt.engines.runtime.speculation.speculation import Speculation
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
        draws: what chooses tokens on the host; default the engine's own way, or compiled.
        target_itl_s: what a step should take that feeds prompts beside tokens that others wait
            for; default whatever max_num_tokens takes.
        speculation: guesses tokens that sequences say next; the answers are the same, sooner.
            Default none.
        reuse: keeps states of prompts for later ones; default none. With it, a request of a better
            priority takes the slot of a worse one, whose state waits on the host meanwhile.
        clock: seconds, for the target.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer | None = None,
        *,
        eos_ids: tuple[int, ...] = (),
        max_num_tokens: int | None = None,
        draws: Draws | None = None,
        target_itl_s: float | None = None,
        reuse: Reuse | None = None,
        speculation: Speculation | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start with nothing to do."""
        limits = engine.limits
        self.engine = engine
        self.tokenizer = tokenizer
        self.eos_ids = tuple({*eos_ids, *(tokenizer.eos_ids if tokenizer else ())})
        self.max_num_tokens = max_num_tokens or limits.max_batch_size + limits.chunk_tokens
        self._ended: list[Update] = []
        self._pipeline = open_pipeline(engine, draws)
        self._slots = SlotHolders(
            self._pipeline,
            limits.max_batch_size,
            tokenizer=tokenizer,
            eos_ids=self.eos_ids,
            reuse=reuse,
            adapt=engine.adapt if isinstance(engine, TakesAdapters) else None,
        )
        self._reuse = reuse
        self._drafting = Drafting(speculation)
        self._chosen_s = 0.0  # when the last tokens were known
        self._due: list[RunningRequest] | None = None  # whose tokens are being chosen
        self._begun = Begun()
        most = self.max_num_tokens
        self._pace = None if target_itl_s is None else StepPace(target_itl_s, most)
        self._clock = clock
        if self.max_num_tokens < limits.max_batch_size:
            raise ConfigError(
                f"max_num_tokens must be at least max_batch_size ({engine.limits.max_batch_size})."
            )

    @property
    def kept(self) -> KeptStats | None:
        """What kept states did so far; None where none is kept."""
        return None if self._reuse is None else self._reuse.cache.stats

    @property
    def speculation(self) -> SpeculationStats | None:
        """What guesses did so far; None where nothing is guessed."""
        return self._drafting.stats

    @property
    def running(self) -> Mapping[str, RunningRequest]:
        """The requests that have a slot."""
        return self._slots.running

    @property
    def waiting(self) -> Collection[Request]:
        """The requests that wait for a slot, in order; also those that had to give theirs up."""
        return tuple(self._slots.line)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to run or report."""
        return not (self._slots.line or self.running or self._ended)

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ConfigError: the prompt is empty, too long or out of the vocabulary, the request asks
                for more tokens than a sequence can hold, or its id is in use.
        """
        if request.request_id in self.running or any(
            other.request_id == request.request_id for other in self._slots.line
        ):
            raise ConfigError(f"request id {request.request_id!r} is in use.")
        check_request(request, self.engine, self.tokenizer)
        self._slots.line.join(request)

    def cancel(self, request_id: str) -> None:
        """End a request; its slot is free at once. An unknown id is ignored: it has just ended."""
        if self._slots.cancel(request_id):
            self._ended.append(Update(request_id, finish_reason=FinishReason.CANCELLED))

    def step(self) -> list[Update]:
        """Admit, feed the engine once, choose; return what each request gained.

        Over a pipeline that is ahead that is what the step before has chosen.
        """
        admitted = self._slots.admit(self._learn)
        updates, self._ended = [*self._ended, *admitted], []
        fed = self._plan()
        start_s = self._clock()
        is_plain = all(sequence.is_decoding for sequence, _ in fed)  # no prompt
        if fed:
            self._pipeline.begin([feed for _, feed in fed])
        updates += self._learn()  # of the step before, where the pipeline is ahead
        if fed:
            updates += self._choose(fed, start_s)
        if not self._pipeline.is_ahead:
            updates += self._learn()
            if is_plain:  # what further tokens take is theirs with guesses and without
                self._drafting.took(fed, self._clock() - start_s)
            while due := self._drafting.right:
                self._pipeline.choose(self._drafting.turns())
                self._due = due
                updates += self._learn()
        return updates

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
            end = sequence.next_stop
            size = min(end - start, self.engine.limits.chunk_tokens, budget)
            num_logits = 1
            if sequence.scores.is_wanted:
                num_logits = size = min(size, rows_left)
                rows_left -= size
                if not size:
                    continue
            chunk = prompt[start : start + size]
            fed.append((sequence, Feed(sequence.place.slot, chunk, num_logits)))
            budget -= size
        return self._drafting.with_guesses(fed, budget)

    def _choose(self, fed: list[tuple[RunningRequest, Feed]], start_s: float) -> list[Update]:
        """Have the tokens chosen that follow from the step's logits; return who failed."""
        failed: list[Update] = []
        turns: list[Turn] = []
        due: list[RunningRequest] = []
        num_rows = num_prompt = 0
        is_beside = fed[0][0].is_decoding  # other sequences wait for their tokens
        for sequence, feed in fed:
            first, num_rows = num_rows, num_rows + feed.num_logits
            if not self._slots.has(sequence):
                continue  # it has ended while the step was under way
            if not sequence.is_decoding:
                score = partial(self._pipeline.score, first)
                if not sequence.scores.add(sequence.num_fed, feed.num_logits, score):
                    self._slots.end(sequence, is_sound=False)
                    failed.append(sequence.not_finite())
                    continue
                sequence.num_fed += len(feed.tokens)
                num_prompt += len(feed.tokens)
                if self._reuse is not None and sequence.keeping is not None:
                    self._reuse.fed(sequence.keeping, sequence.num_fed)
            if sequence.is_decoding:
                sequence.is_due = True
                due.append(sequence)
                row = num_rows - 1
                if sequence.draft is not None:
                    row = sequence.draft.first_row = first
                turns.append(Turn(row, sequence.place.draw, sequence.rule))
        self._pipeline.choose(turns)
        self._due = due
        self._begun = Begun(start_s, num_prompt, len(turns), is_beside)
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
            if self._slots.has(sequence)  # else it was cancelled
        ]
        followed = [gain.sequence for gain in gains if gain.is_followed]
        found = next_rules(sequence.request for sequence in followed)
        for sequence, rule in zip(followed, found, strict=True):
            sequence.rule = rule
        self._drafting.settle(gains)
        return [self._conclude(gain) for gain in gains]

    def _conclude(self, gain: Gain) -> Update:
        """Return what a token brought, and free the slot if it was the last."""
        update = gain.sequence.conclude(gain)
        if update.finish_reason is not None:
            self._slots.end(gain.sequence, is_sound=gain.choice is not None)
            if gain.choice is not None:
                self._drafting.ended(gain.sequence)
        return update

    def _tell_pace(self) -> None:
        """Note how long the step took whose tokens have just come."""
        begun, now_s = self._begun, self._clock()
        took_s = now_s - max(begun.start_s, self._chosen_s)
        if self._pace is not None and begun.num_prompt and begun.is_beside:
            self._pace.learn(begun.num_prompt, took_s)
        if self._reuse is not None and begun.num_prompt > begun.num_turns:
            self._reuse.took(begun.num_prompt, took_s)  # a step that the prompts took up
        self._chosen_s = now_s
        self._begun = Begun()  # guesses that are right are learned after it


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that has begun: when, of how many prompt tokens and choices, and beside decodes."""

    start_s: float = 0.0
    num_prompt: int = 0
    num_turns: int = 0
    is_beside: bool = False
