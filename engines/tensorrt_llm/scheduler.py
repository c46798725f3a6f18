"""Drives `tensorrt_llm.LLM`, which batches on its own, by the methods of our scheduler."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nemotrt.engines.request import FinishReason, Request, Token, Update
from nemotrt.engines.request_scheduler import Sized, check_request
from nemotrt.engines.tensorrt_llm.sampling import sampling_fields
from nemotrt.engines.tensorrt_llm.token_streams import Gained, TokenStreams
from nemotrt.engines.text_stream import TextStream
from nemotrt.engines.tokenizer import Tokenizer
from nemotrt.errors import ChildProcessFailedError, ConfigError

POLL_S = 0.02  # how long a step waits for a token: a cancellation waits no longer
STALL_S = 120.0  # no token in this time, though requests run: the LLM hangs
REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


@dataclass(slots=True)
class Sequence:
    """A request that the LLM has."""

    request: Request
    number: int
    text: TextStream
    output: list[int] = field(default_factory=list)

    @property
    def num_fed(self) -> int:
        """Prompt tokens that are known to be in: all, once a token has come."""
        return len(self.request.prompt) if self.output else 0


class LLMScheduler:
    """A RequestScheduler over an LLM; as ours, it is not thread-safe.

    Args:
        engine: limits and vocabulary.
        streams: where the LLM's requests are followed.
        make_params: `tensorrt_llm.SamplingParams`.
        tokenizer: makes text and knows the end-of-sequence ids; None gives tokens without text.
        eos_ids: further ids that end a sequence.
    """

    def __init__(
        self,
        engine: Sized,
        streams: TokenStreams,
        make_params: Callable[..., Any],
        tokenizer: Tokenizer | None = None,
        eos_ids: tuple[int, ...] = (),
    ) -> None:
        """Start with nothing to do."""
        self.engine = engine
        self.tokenizer = tokenizer
        self.eos_ids = tuple(dict.fromkeys((*eos_ids, *(tokenizer.eos_ids if tokenizer else ()))))
        self.running: dict[str, Sequence] = {}
        self.waiting: tuple[Request, ...] = ()  # the LLM's own queue, which can't be seen
        self._streams = streams
        self._make_params = make_params
        self._by_number: dict[int, Sequence] = {}
        self._ended: list[Update] = []
        self._heard_s = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to run or report."""
        return not (self.running or self._ended)

    def submit(self, request: Request) -> None:
        """Hand a request to the LLM.

        Raises:
            ConfigError: the request can't be run, its id is in use, or it is steered token by
                token: that runs inside the LLM's processes, which we don't reach.
        """
        if request.request_id in self.running:
            raise ConfigError(f"request id {request.request_id!r} is in use.")
        if request.guide is not None:
            raise ConfigError(
                "backend tensorrt-llm has no guided decoding and no thinking budget; leave out "
                "guided_decoding_guide_type and max_thinking_tokens."
            )
        check_request(request, self.engine, self.engine.limits.max_seq_len, self.tokenizer)
        params = self._make_params(**sampling_fields(request.params, self.eos_ids))
        if not self.running:
            self._heard_s = time.monotonic()
        number = self._streams.start(request.prompt, params)
        text = TextStream(self.tokenizer, request.params.stop)
        sequence = Sequence(request, number, text)
        self.running[request.request_id] = self._by_number[number] = sequence

    def cancel(self, request_id: str) -> None:
        """Abort a request. An unknown id is ignored: it has just ended."""
        if request_id in self.running:
            self._abort(self.running[request_id])
            self._ended.append(Update(request_id, finish_reason=FinishReason.CANCELLED))

    def step(self) -> list[Update]:
        """Wait a moment for tokens; return what each request gained.

        Raises:
            ChildProcessFailedError: the LLM failed, or gives nothing any more.
        """
        updates, self._ended = self._ended, []
        if not self.running:
            return updates
        gained = self._streams.take(0 if updates else POLL_S)
        now_s = time.monotonic()
        if gained:
            self._heard_s = now_s
        elif now_s - self._heard_s > STALL_S:
            raise ChildProcessFailedError(
                f"TensorRT-LLM gave no token for {STALL_S:g} s, with {len(self.running)} requests."
            )
        for news in gained:
            sequence = self._by_number.get(news.number)
            if sequence is not None:  # else it was cancelled, or ended at a stop string
                updates.append(self._advance(sequence, news))
        return updates

    def _advance(self, sequence: Sequence, news: Gained) -> Update:
        """Return what a request gained, and forget it if that was the last."""
        request_id = sequence.request.request_id
        if news.fault is not None:
            return self._fail(sequence, news.fault)
        tokens, shown, reason = [], "", None
        for position, token in enumerate(news.ids):
            is_end = self._is_end(sequence.request, token)
            sequence.output.append(token)
            piece, text = ("", "") if is_end else sequence.text.push(token)
            shown += text
            logprobs = news.logprobs[position] if position < len(news.logprobs) else None
            tokens.append(_token(token, piece, logprobs, sequence.request.params.logprobs))
            if is_end or sequence.text.is_stopped:
                reason = FinishReason.STOP
                break
        if reason is None and news.finish_reason is not None:
            if news.finish_reason not in REASONS:
                return self._fail(sequence, RuntimeError(f"it ended by {news.finish_reason!r}"))
            reason = REASONS[news.finish_reason]
        if reason is not None:
            shown += sequence.text.flush()
            if news.finish_reason is None:
                self._abort(sequence)  # at a stop string, of which the LLM knows nothing
            else:
                self._forget(sequence)
        return Update(request_id, tuple(tokens), shown, reason)

    def _is_end(self, request: Request, token: int) -> bool:
        """Whether a token ends the request's text."""
        is_eos = token in self.eos_ids and not request.params.ignore_eos
        return is_eos or token in request.params.stop_token_ids

    def _fail(self, sequence: Sequence, fault: BaseException) -> Update:
        """End one request by its own fault; any other fault is the LLM's, and fatal."""
        is_own = isinstance(fault, ValueError) or type(fault).__name__ == "RequestError"
        if not is_own:
            raise ChildProcessFailedError(f"TensorRT-LLM failed: {fault!r}") from fault
        self._forget(sequence)
        name = sequence.request.request_id
        return Update(name, finish_reason=FinishReason.ERROR, error=str(fault))

    def _abort(self, sequence: Sequence) -> None:
        """Give a request up and forget it."""
        self._streams.abort(sequence.number)
        self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self.running[sequence.request.request_id]
        del self._by_number[sequence.number]


def _token(token: int, piece: str, found: Any, num_top: int | None) -> Token:
    """Return a token with what the LLM says of its probability.

    `found` maps token ids to objects with a `logprob`; some versions give the chosen token's alone,
    as a number.
    """
    if num_top is None or found is None:
        return Token(token, piece)
    if isinstance(found, float):
        return Token(token, piece, found)
    ranked = sorted(found.items(), key=lambda item: -item[1].logprob)
    top = tuple((int(name), float(entry.logprob)) for name, entry in ranked[:num_top])
    chosen = found.get(token)
    return Token(token, piece, None if chosen is None else float(chosen.logprob), top)
