"""A request's tensors, checked and turned into what the scheduler takes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pydantic

from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.guide import AfterThinking, Guide, TextGuide, ThinkingBudget
from nemotrt.engines.runtime.sampling.limits import MAX_BIASES
from nemotrt.engines.runtime.sampling.params import NUMBERS, SamplingParams
from nemotrt.engines.text.chat.turn import Turn, read_turn
from nemotrt.engines.text.reasoning import Trace
from nemotrt.engines.text.stop_matcher import prepare_stops
from nemotrt.engines.text.tag_tokens import tag_tokens
from nemotrt.errors import ConfigError
from nemotrt.files.model_file import place
from nemotrt.serve.engine.biases import Encode, biases_of_ids, biases_of_words
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.requests.limits import (
    MAX_PROMPT_LOG_PROBS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    check_count,
    check_head,
    check_room,
    check_stops,
    check_text,
)
from nemotrt.serve.requests.sampling_schema import with_numbers

BIAS_LISTS = (
    "embedding_bias_words",
    "embedding_bias_weights",
    "logit_bias_ids",
    "logit_bias_values",
)


@with_numbers(has_bounds=False)
class Inputs(pydantic.BaseModel):
    """The input tensors by name, as the wire carries them; None where the client gave none."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    text_input: str | None = None
    input_ids: tuple[int, ...] | None = pydantic.Field(default=None, strict=False)
    max_tokens: int | None = None
    min_tokens: int = 0
    stream: bool = False
    stop: bool = False
    stop_words: tuple[str, ...] = pydantic.Field(default=(), strict=False)
    bad_words: tuple[str, ...] = pydantic.Field(default=(), strict=False)
    embedding_bias_words: tuple[str, ...] = pydantic.Field(default=(), strict=False)
    embedding_bias_weights: tuple[float, ...] = pydantic.Field(default=(), strict=False)
    end_id: int | None = None
    pad_id: int | None = None  # nothing is padded, so it can't change the answer
    top_k: int = 0
    top_p: float = 1.0
    temperature: float | None = None
    length_penalty: float = 1.0
    seed: int | None = None
    beam_width: int = 1
    num_return_sequences: int = 1
    exclude_input_in_output: bool = True
    return_log_probs: bool = False
    return_num_input_tokens: bool = False
    return_num_output_tokens: bool = False
    guided_decoding_guide_type: str | None = None
    guided_decoding_guide: str | None = None
    num_top_log_probs: int = 0
    return_output_ids: bool = False
    return_progress: bool = False
    add_special_tokens: bool = True
    stop_token_ids: tuple[int, ...] = pydantic.Field(default=(), strict=False)
    ignore_eos: bool = False
    max_thinking_tokens: int | None = None
    stop_in_reasoning: bool = False
    priority: int = 0
    timeout_ms: int | None = None
    return_prompt_log_probs: bool = False
    num_top_prompt_log_probs: int = 0
    logit_bias_ids: tuple[int, ...] = pydantic.Field(default=(), strict=False)
    logit_bias_values: tuple[float, ...] = pydantic.Field(default=(), strict=False)

    @property
    def tells_of_prompt(self) -> bool:
        """Whether the answer says something without any output."""
        is_returned = self.return_prompt_log_probs or not self.exclude_input_in_output
        return is_returned or self.return_num_input_tokens

    def check_supported(self) -> None:
        """Raise ConfigError for what no engine here does, rather than leave it unheeded."""
        refusals = {
            "bad_words": any(self.bad_words),  # NVIDIA's clients send empty words for none
            "beam_width above 1": self.beam_width != 1,
            "length_penalty": self.length_penalty != 1,
            "num_return_sequences above 1": self.num_return_sequences != 1,
        }
        for name, is_asked in refusals.items():
            if is_asked:
                raise ConfigError(f"{name} is not supported; leave it out.")
        if self.guided_decoding_guide and not self.guided_decoding_guide_type:
            raise ConfigError("guided_decoding_guide needs guided_decoding_guide_type; give both.")
        limits = {"timeout_ms": (self.timeout_ms, 1)}
        limits["max_thinking_tokens"] = (self.max_thinking_tokens, 0)
        for name, (value, least) in limits.items():
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}.")
        if self.num_top_log_probs and not self.return_log_probs:
            raise ConfigError("num_top_log_probs needs return_log_probs.")
        if self.num_top_prompt_log_probs and not self.return_prompt_log_probs:
            raise ConfigError("num_top_prompt_log_probs needs return_prompt_log_probs.")


@dataclass(slots=True)
class Submission:
    """A request on its way through the engine's queue, and how its client wants to hear of it."""

    request: Request
    inputs: Inputs
    prompt_text: str
    submitted_s: float  # on the monotonic clock, as is the deadline
    deadline_s: float | None
    owner: Any  # whoever gets the updates; all that one owner has can be cancelled together
    deliver: Callable[[dict[str, Any]], None]


def read_inputs(values: dict[str, Any], max_seq_len: int) -> Inputs:
    """Return the checked inputs; lists are counted before anything walks over them.

    Raises:
        ConfigError: a name is unknown, a value has the wrong type or is too long, or a feature is
            missing.
    """
    for name, limit in (
        ("stop_words", MAX_STOP_STRINGS),
        ("bad_words", MAX_STOP_STRINGS),
        ("stop_token_ids", MAX_STOP_TOKEN_IDS),
        *((name, MAX_BIASES) for name in BIAS_LISTS),
    ):
        if isinstance(values.get(name), list):
            check_count(name, len(values[name]), limit)
    if isinstance(values.get("input_ids"), list):
        check_room(len(values["input_ids"]), max_seq_len, min_output=0)
    try:
        inputs = Inputs.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{place(first)}: {first['msg']}.") from None
    check_stops("stop_words", inputs.stop_words)
    inputs.check_supported()
    return inputs


def prompt_ids(inputs: Inputs, opened: OpenEngine) -> tuple[int, ...]:
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


def sampling_params(
    inputs: Inputs,
    num_prompt_tokens: int,
    max_seq_len: int,
    vocab_size: int,
    encode: Encode | None = None,
) -> SamplingParams:
    """Return the sampling; max_tokens is cut to what the engine still holds, its default.

    `encode` makes tokens of biased words, None where there is no tokenizer.

    Raises:
        ConfigError: a value is out of range, or the prompt leaves no room.
    """
    if inputs.max_tokens == 0 and not inputs.tells_of_prompt:
        raise ConfigError(
            "max_tokens must be at least 1, got 0: that is for an answer that tells of the prompt "
            "(return_prompt_log_probs, return_num_input_tokens, exclude_input_in_output false)."
        )
    room = check_room(num_prompt_tokens, max_seq_len, min_output=int(inputs.max_tokens != 0))
    numbers = {name: getattr(inputs, name) for name in NUMBERS}
    is_sampling = inputs.top_k > 1 or inputs.top_p < 1 or numbers["min_p"] > 0
    temperature = inputs.temperature
    if temperature is None:
        temperature = 1.0 if is_sampling else 0.0  # NVIDIA's backend: greedy unless asked
    end_ids = () if inputs.end_id is None else (inputs.end_id,)
    stop_ids = (*inputs.stop_token_ids, *end_ids)
    if not all(0 <= token < vocab_size for token in stop_ids):
        raise ConfigError(f"stop_token_ids and end_id must be 0 to {vocab_size - 1}.")
    params = SamplingParams(
        max_tokens=room if inputs.max_tokens is None else min(inputs.max_tokens, room),
        min_tokens=inputs.min_tokens,
        temperature=temperature,
        top_k=inputs.top_k,
        top_p=inputs.top_p,
        seed=inputs.seed,
        **numbers,
        logit_bias=(
            *biases_of_ids(inputs.logit_bias_ids, inputs.logit_bias_values),
            *biases_of_words(inputs.embedding_bias_words, inputs.embedding_bias_weights, encode),
        ),
        stop=tuple(word for word in inputs.stop_words if word),
        stop_token_ids=stop_ids,
        ignore_eos=inputs.ignore_eos,
        logprobs=inputs.num_top_log_probs if inputs.return_log_probs else None,
        prompt_logprobs=_num_prompt_logprobs(inputs, num_prompt_tokens),
    )
    params.check_biased(vocab_size)
    return params


def _num_prompt_logprobs(inputs: Inputs, num_prompt_tokens: int) -> int | None:
    """Return how many likeliest tokens go with each of the prompt's, None for no scores.

    Raises:
        ConfigError: together they are more than one response may carry.
    """
    if not inputs.return_prompt_log_probs:
        return None
    total = num_prompt_tokens * (1 + inputs.num_top_prompt_log_probs)
    if total > MAX_PROMPT_LOG_PROBS:
        raise ConfigError(
            f"{num_prompt_tokens} prompt tokens with {inputs.num_top_prompt_log_probs} likeliest "
            f"each are {total} log-probabilities; a response carries {MAX_PROMPT_LOG_PROBS}. "
            "Ask for fewer, or send the prompt in parts."
        )
    return inputs.num_top_prompt_log_probs


def make_submission(
    request_id: str,
    values: dict[str, Any],
    opened: OpenEngine,
    owner: Any,
    deliver: Callable[[dict[str, Any]], None],
    grammars: GrammarCompiler | None = None,
    *,
    arrived_s: float | None = None,
) -> Submission:
    """Return the submission for a request's input tensors, which came at `arrived_s`, or now.

    Raises:
        ConfigError: something in it is wrong or too long.
    """
    now = time.monotonic() if arrived_s is None else arrived_s
    inputs = read_inputs(values, opened.engine.limits.max_seq_len)
    prepare_stops(inputs.stop_words)
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
    guide = _guide(inputs, turn, opened, grammars)
    request = Request(request_id, ids, params, guide, trace)
    return Submission(request, inputs, text, now, deadline, owner, deliver)


def _turn(inputs: Inputs, ids: tuple[int, ...], opened: OpenEngine) -> Turn:
    """Return where the prompt leaves the assistant's turn, as far as the request depends on it."""
    is_steered = inputs.stop_words or inputs.guided_decoding_guide_type
    if opened.tokenizer is None or not (is_steered or inputs.max_thinking_tokens is not None):
        return Turn(Trace.CLOSED, expects_trace=False, is_at_newline=False)
    text = inputs.text_input
    if text is None:
        text = opened.tokenizer.decode(ids, skip_special_tokens=False)
    return read_turn(text, opened.template)


def _guide(
    inputs: Inputs, turn: Turn, opened: OpenEngine, grammars: GrammarCompiler | None
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
    thinking = ThinkingBudget(limit, encode, turn.trace, is_at_newline=turn.is_at_newline)
    if grammar is None:
        return thinking
    tags = tag_tokens(tokenizer, opened.engine.vocab_size, opened.eos_ids)
    return AfterThinking(thinking, grammar, tags)
