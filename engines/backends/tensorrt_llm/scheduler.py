"""Drives `tensorrt_llm.LLM`, which batches on its own, by the methods of our scheduler."""

import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from types import MappingProxyType

from nemotrt.engines.backends.tensorrt_llm.llm_request import Gain, LLMRequest, check_guide
from nemotrt.engines.backends.tensorrt_llm.process.llm_process import LLMProcess
from nemotrt.engines.backends.tensorrt_llm.process.news import (
    ContextRows,
    Fault,
    Gained,
)
from nemotrt.engines.backends.tensorrt_llm.sampling import (
    are_finite,
    check_min_tokens,
    sampling_fields,
)
from nemotrt.engines.runtime.engine import HasLimits
from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.engines.runtime.request import (
    NOT_FINITE,
    ErrorCode,
    FinishReason,
    Request,
    Update,
)
from nemotrt.engines.runtime.request_scheduler import SpeculationStats, check_request
from nemotrt.engines.runtime.sampling.draws import Draws, open_draws
from nemotrt.engines.runtime.sampling.params import is_finite
from nemotrt.engines.runtime.scheduling.prompt_scores import PromptScores
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.errors import ChildProcessFailedError, ConfigError

POLL_S = 0.02  # how long a step waits for a token: a cancellation waits no longer
STALL_S = 120.0  # no token in this time, though requests run: the LLM hangs
LLMAdapter = tuple[str, int, str]
NO_ADAPTERS: Mapping[str, LLMAdapter] = MappingProxyType({})
REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class LLMScheduler:
    """A RequestScheduler over an LLM; as ours, it is not thread-safe.

    Args:
        engine: limits and vocabulary.
        process: the LLM's.
        tokenizer: makes text and knows the end-of-sequence ids; None gives tokens without text.
        eos_ids: further ids that end a sequence.
        reuses_prefixes: whether the LLM keeps prefixes, of which it has no logits then.
        adapters: what the LLM is told of each: its name, its number, its folder.
    """

    def __init__(
        self,
        engine: HasLimits,
        process: LLMProcess,
        tokenizer: Tokenizer | None = None,
        eos_ids: tuple[int, ...] = (),
        *,
        reuses_prefixes: bool = False,
        adapters: Mapping[str, LLMAdapter] = NO_ADAPTERS,
    ) -> None:
        """Start with nothing to do."""
        self.engine = engine
        self.tokenizer = tokenizer
        self.eos_ids = tuple(dict.fromkeys((*eos_ids, *(tokenizer.eos_ids if tokenizer else ()))))
        self.running: dict[str, LLMRequest] = {}
        self.waiting: tuple[Request, ...] = ()  # the LLM's own queue, which can't be seen
        self._process = process
        self._reuses_prefixes = reuses_prefixes
        self._adapters = adapters
        self._by_number: dict[int, LLMRequest] = {}
        self._ended: list[Update] = []
        self._heard_s = time.monotonic()

    @cached_property
    def _draws(self) -> Draws:
        """What scores prompts; the LLM chooses its tokens itself."""
        return open_draws(self.engine)

    @property
    def kept(self) -> KeptStats | None:
        """None: what TensorRT-LLM keeps, it counts itself."""
        return None

    @property
    def speculation(self) -> SpeculationStats | None:
        """None: nothing is guessed here."""
        return None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to run or report."""
        return not (self.running or self._ended)

    def submit(self, request: Request) -> None:
        """Hand a request to the LLM.

        Raises:
            ConfigError: the request can't be run, its id is in use, or it has a grammar: that masks
                logits, which are in the LLM's processes; or several ends would ignore its
                min_tokens.
        """
        if request.request_id in self.running:
            raise ConfigError(f"request id {request.request_id!r} is in use.")
        check_guide(request)
        check_min_tokens(request.params, self.eos_ids)
        check_request(request, self.engine, self.tokenizer)
        if not self.running:
            self._heard_s = time.monotonic()
        sequence = LLMRequest(
            request,
            request.text_stream(self.tokenizer),
            PromptScores(request.prompt, request.params.prompt_logprobs),
        )
        self.running[request.request_id] = sequence
        if sequence.forced is None:
            self._start(sequence)
        else:
            self._ended.append(self._go_on(sequence, Gain()))

    def cancel(self, request_id: str) -> None:
        """Abort a request. An unknown id is ignored: it has just ended."""
        if request_id in self.running:
            self._stop(self.running[request_id])
            self._forget(self.running[request_id])
            self._ended.append(Update(request_id, finish_reason=FinishReason.CANCELLED))

    def when_broken(self, tell: Callable[[], None]) -> None:
        """Let another thread call `tell` once the LLM's process is gone."""
        self._process.when_ended(tell)

    def check(self) -> None:
        """Raise ChildProcessFailedError if the LLM's process is gone; running requests hear it."""
        while not self.running and self._process.take(0):
            pass  # of requests that were given up

    def step(self) -> list[Update]:
        """Wait a moment for tokens; return what each request gained.

        Raises:
            ChildProcessFailedError: the LLM failed, or gives nothing any more.
        """
        updates, self._ended = self._ended, []
        if not self.running:
            return updates
        gained = self._process.take(0 if updates else POLL_S)
        now_s = time.monotonic()
        if gained:
            self._heard_s = now_s
        elif now_s - self._heard_s > STALL_S:
            raise ChildProcessFailedError(
                f"TensorRT-LLM gave no token for {STALL_S:g} s, with {len(self.running)} requests."
            )
        for news in gained:
            sequence = self._by_number.get(news.number)
            if sequence is None:
                continue  # it was cancelled, or ended at a stop string
            update = (
                self._score(sequence, news.rows) if news.rows else self._advance(sequence, news)
            )
            updates += [update] if update else []
        return updates

    def _score(self, sequence: LLMRequest, rows: ContextRows) -> Update | None:
        """Score the next part of a prompt; return how the request ended, if it did."""
        shape = (len(sequence.request.prompt), self.engine.vocab_size)
        num_rows, vocab_size = rows.logits.shape
        end = rows.start + num_rows
        found = (rows.num_rows, vocab_size)
        if found != shape or rows.start != sequence.num_scored or not rows.start < end <= shape[0]:
            return self._end_unscored(sequence, f"{found}")
        score = partial(self._draws.score, rows.logits)
        if not (sequence.scores.add(rows.start, num_rows, score) and is_finite(rows.logits[-1])):
            return self._end_not_finite(sequence)
        sequence.num_scored = end
        return None

    def _advance(self, sequence: LLMRequest, news: Gained) -> Update:
        """Return what a response brought a request."""
        if news.fault is not None:
            return self._fail(sequence, news.fault)
        gain = Gain()
        if self._reuses_prefixes and sequence.cached_tokens is None:
            is_count = (news.cached_tokens or 0) <= len(sequence.request.prompt)
            gain.cached_tokens = sequence.cached_tokens = news.cached_tokens if is_count else None
        if sequence.scores.is_wanted:
            if sequence.num_scored < len(sequence.request.prompt):
                return self._end_unscored(sequence, "none")
            gain.prompt = sequence.scores.take()
        if sequence.num_left == 0:
            gain.reason = FinishReason.LENGTH  # max_tokens 0: the prompt alone was wanted
        for position, token in enumerate(news.ids if gain.reason is None else ()):
            found = news.logprobs[position] if position < len(news.logprobs) else None
            if not are_finite(found):
                return self._end_not_finite(sequence)
            sequence.add(token, found, gain, self.eos_ids)
            if gain.reason is not None:
                break
            if sequence.forced is not None:
                self._stop(sequence)
                return self._go_on(sequence, gain)
        if gain.reason is None and news.finish_reason is not None:
            if news.finish_reason not in REASONS:
                message = f"it ended by {news.finish_reason!r}"
                return self._fail(sequence, Fault(kind="fatal", message=message))
            gain.reason = REASONS[news.finish_reason]
        if gain.reason is not None and news.finish_reason is None:
            self._stop(sequence)  # at a stop string, of which the LLM knows nothing
        return self._update(sequence, gain)

    def _go_on(self, sequence: LLMRequest, gain: Gain) -> Update:
        """Add the tokens that a thinking budget forces, and let the LLM go on behind them.

        The prompt and all that came are fed again: the model card's way, with two requests.
        """
        while gain.reason is None and (token := sequence.forced) is not None:
            sequence.add(token, None, gain, self.eos_ids)
            if gain.reason is None and sequence.num_left == 0:
                gain.reason = FinishReason.LENGTH
        if gain.reason is None:
            self._start(sequence)
        return self._update(sequence, gain)

    def _start(self, sequence: LLMRequest) -> None:
        """Give the LLM what there is of a sequence, to be continued."""
        params = sequence.request.params
        num_done = len(sequence.output)
        left = dataclasses.replace(
            params,
            max_tokens=params.max_tokens - num_done,
            min_tokens=max(params.min_tokens - num_done, 0),
        )
        fields = sampling_fields(left, self.eos_ids)
        prompt = (*sequence.request.prompt, *sequence.output)
        adapter = self._adapters.get(sequence.request.adapter, ())
        sequence.number = self._process.start(prompt, fields, self._salt(sequence), adapter)
        self._by_number[sequence.number] = sequence

    def _salt(self, sequence: LLMRequest) -> str:
        """Return whose prefixes a request may use; nobody's where every logit of it is wanted."""
        if not self._reuses_prefixes:
            return ""
        is_scored = sequence.request.params.prompt_logprobs is not None
        return secrets.token_hex(16) if is_scored else sequence.request.pool

    def _update(self, sequence: LLMRequest, gain: Gain) -> Update:
        """Return what a request gained, and forget it if that was the last."""
        if gain.reason is not None:
            gain.text += sequence.text.flush()
            if gain.reason is FinishReason.LENGTH and sequence.text.is_stopped:
                gain.reason = FinishReason.STOP
            self._forget(sequence)
        name = sequence.request.request_id
        return Update(
            name,
            tuple(gain.tokens),
            gain.text,
            gain.reason,
            prompt=gain.prompt,
            cached_tokens=gain.cached_tokens,
        )

    def _fail(self, sequence: LLMRequest, fault: Fault) -> Update:
        """End one request by its own fault; any other fault is the LLM's, and fatal."""
        if fault.kind != "request":
            raise ChildProcessFailedError(f"TensorRT-LLM failed: {fault.message}")
        self._forget(sequence)
        name = sequence.request.request_id
        return Update(name, finish_reason=FinishReason.ERROR, error=fault.message)

    def _end_unscored(self, sequence: LLMRequest, given: str) -> Update:
        """End one request whose prompt's logits are not the LLM's to give."""
        self._stop(sequence)
        shape = (len(sequence.request.prompt), self.engine.vocab_size)
        message = f"TensorRT-LLM gave no context logits of shape {shape}: {given}."
        return self._fail(sequence, Fault(kind="request", message=message))

    def _end_not_finite(self, sequence: LLMRequest) -> Update:
        """End one request for which the LLM computed no numbers."""
        self._stop(sequence)
        self._forget(sequence)
        return Update(
            sequence.request.request_id,
            finish_reason=FinishReason.ERROR,
            error=NOT_FINITE,
            error_code=ErrorCode.LOGITS_NOT_FINITE,
        )

    def _stop(self, sequence: LLMRequest) -> None:
        """Let the LLM give a sequence up; nothing more is heard of it."""
        self._process.abort(sequence.number)
        self._by_number.pop(sequence.number, None)

    def _forget(self, sequence: LLMRequest) -> None:
        del self.running[sequence.request.request_id]
        self._by_number.pop(sequence.number, None)
