"""A request's tensors, checked and turned into what the scheduler takes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.bad_words import WithoutWords, word_tokens
from nemotrt.engines.runtime.sampling.guide import Guide, TextGuide
from nemotrt.engines.runtime.sampling.thinking_budget import AfterThinking, ThinkingBudget
from nemotrt.engines.text.chat.turn import Turn, read_turn
from nemotrt.engines.text.hold_back import HoldBack
from nemotrt.engines.text.reasoning import Trace
from nemotrt.engines.text.tag_tokens import tag_tokens
from nemotrt.errors import ConfigError
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.requests.inputs import read_inputs
from nemotrt.serve.requests.limits import check_head, check_text
from nemotrt.serve.requests.sampling import sampling_params
from nemotrt.wire.request import GenerationRequest
from nemotrt.wire.trail import NO_TRAIL, Trail

ANY_TEXT = Turn(Trace.CLOSED, expects_trace=False, is_at_newline=False)  # a trace plays no part


@dataclass(slots=True)
class Submission:
    """A request on its way through the engine's queue, and how its client wants to hear of it."""

    request: Request
    inputs: GenerationRequest
    prompt_text: str
    submitted_s: float  # on the monotonic clock, as is the deadline
    deadline_s: float | None
    owner: Any  # whoever gets the updates; all that one owner has can be cancelled together
    deliver: Callable[[dict[str, Any]], None]
    turn: Turn = ANY_TEXT  # where the prompt leaves the assistant's
    trail: Trail = NO_TRAIL


def prompt_ids(inputs: GenerationRequest, opened: OpenEngine) -> tuple[int, ...]:
    """Return the prompt's ids, from text or as they came.

    Raises:
        ConfigError: there is none or there are both, or it is too long.
    """
    if (inputs.text_input is None) == (inputs.input_ids is None):
        raise ConfigError("give text_input or input_ids, one of them.")
    if inputs.input_ids is not None:
        if not all(0 <= token < opened.engine.vocab_size for token in inputs.input_ids):
            raise ConfigError(f"prompt ids must be 0 to {opened.engine.vocab_size - 1}.")
        return inputs.input_ids
    text = inputs.text_input or ""
    if opened.tokenizer is None:
        raise ConfigError("the engine has no tokenizer; give input_ids.")
    max_seq_len = opened.engine.limits.max_seq_len
    check_text("text_input", len(text), max_seq_len)
    encode = partial(opened.tokenizer.encode, add_special_tokens=inputs.add_special_tokens)
    check_head(text, max_seq_len, encode)
    return tuple(encode(text))


def make_submission(
    request_id: str,
    values: dict[str, Any],
    opened: OpenEngine,
    owner: Any,
    deliver: Callable[[dict[str, Any]], None],
    grammars: GrammarCompiler | None = None,
    *,
    arrived_s: float | None = None,
    trail: Trail = NO_TRAIL,
) -> Submission:
    """Return the submission for a request's input tensors, which came at `arrived_s`, or now.

    Raises:
        ConfigError: something in it is wrong or too long.
    """
    now = time.monotonic() if arrived_s is None else arrived_s
    inputs = read_inputs(values, opened.engine.limits.max_seq_len)
    HoldBack(inputs.stop_words)  # compiled and kept, on this thread and not on the engine's
    ids = prompt_ids(inputs, opened)
    engine, encode = opened.engine, None
    if opened.tokenizer is not None:
        encode = partial(opened.tokenizer.encode, add_special_tokens=False)
    max_seq_len = engine.limits.max_seq_len
    params = sampling_params(inputs, len(ids), max_seq_len, engine.vocab_size, encode)
    text = ""
    if not inputs.exclude_input_in_output:
        text = inputs.text_input or (opened.tokenizer.decode(ids) if opened.tokenizer else "")
    deadline = None if inputs.timeout_ms is None else now + inputs.timeout_ms / 1000
    turn = _turn(inputs, ids, opened)
    trace = Trace.CLOSED if inputs.stop_in_reasoning else turn.trace
    guide = _without_words(inputs, opened, _guide(inputs, turn, opened, grammars))
    salt, priority = inputs.cache_salt or "", inputs.priority
    adapter = inputs.lora_name or ""
    request = Request(request_id, ids, params, guide, trace, salt, priority, adapter)
    return Submission(request, inputs, text, now, deadline, owner, deliver, turn, trail)


def _turn(inputs: GenerationRequest, ids: tuple[int, ...], opened: OpenEngine) -> Turn:
    """Return where the prompt leaves the assistant's turn, as far as the request depends on it."""
    depends = (
        inputs.stop_words
        or inputs.guided_decoding_guide_type
        or inputs.return_num_reasoning_tokens
        or inputs.max_thinking_tokens is not None
    )
    if opened.tokenizer is None or not depends:
        return ANY_TEXT
    text = inputs.text_input
    if text is None:
        text = opened.tokenizer.decode(ids, skip_special_tokens=False)
    return read_turn(text, opened.template)


def _without_words(
    inputs: GenerationRequest, opened: OpenEngine, guide: Guide | None
) -> Guide | None:
    """Return a guide that keeps `bad_words` out too; empty ones ask for nothing."""
    words = [word for word in inputs.bad_words if word.strip()]
    if not words:
        return guide
    if opened.tokenizer is None:
        raise ConfigError("the engine has no tokenizer; leave out bad_words.")
    encode = partial(opened.tokenizer.encode, add_special_tokens=False)
    return WithoutWords(word_tokens(words, encode), opened.engine.vocab_size, guide)


def _guide(
    inputs: GenerationRequest, turn: Turn, opened: OpenEngine, grammars: GrammarCompiler | None
) -> Guide | None:
    """Return what steers the request: a budget while it thinks, a grammar for what it answers.

    A grammar leaves room for a trace only where one is open, or the chat template lets the model
    open one; a budget holds for any trace.
    """
    grammar: TextGuide | None = None
    kind, guide = inputs.guided_decoding_guide_type or "", inputs.guided_decoding_guide or ""
    if kind:
        if grammars is None:
            raise ConfigError("the engine has no tokenizer; leave out guided_decoding_guide_type.")
        grammar = grammars.guide(kind, guide)
        if not turn.expects_trace:
            return grammar
    tokenizer = opened.tokenizer
    if tokenizer is None and inputs.max_thinking_tokens is not None:
        raise ConfigError("the engine has no tokenizer; leave out max_thinking_tokens.")
    can_think = turn.trace in (Trace.BEFORE, Trace.OPEN)
    is_limited = can_think and inputs.max_thinking_tokens is not None
    if tokenizer is None or not (grammar or is_limited):
        return None  # a trace that can't open needs no limit
    limit = math.inf if inputs.max_thinking_tokens is None else inputs.max_thinking_tokens
    encode = partial(tokenizer.encode, add_special_tokens=False)
    at_newline = turn.is_at_newline
    thinking = ThinkingBudget(turn.chat, limit, encode, turn.trace, is_at_newline=at_newline)
    if grammar is None:
        return thinking
    tags = tag_tokens(tokenizer, opened.engine.vocab_size, opened.eos_ids)
    return AfterThinking(thinking, grammar, tags)
