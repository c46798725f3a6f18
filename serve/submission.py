"""A request's tensors, checked and turned into what the scheduler takes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pydantic

from nemotrt.engines.chat import is_reasoning
from nemotrt.engines.guide import AfterThinking, Guide, ThinkingBudget
from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.request import Request
from nemotrt.engines.sampling import SamplingParams
from nemotrt.engines.tokenizer import Tokenizer
from nemotrt.errors import ConfigError
from nemotrt.serve.grammar import GrammarCompiler

TAIL_TOKENS = 16  # enough to hold "<think>" in any tokenizer
MAX_PROMPT_LOG_PROBS = 1 << 18  # of one request: what a response and its clients' threads bear
MAX_BYTES_PER_TOKEN = 64  # a longer text can't fit: refused before it costs a tokenizer's time


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
    end_id: int | None = None
    pad_id: int | None = None
    top_k: int = 0
    top_p: float = 1.0
    temperature: float | None = None
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
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
    priority: int = 0
    timeout_ms: int | None = None
    return_prompt_log_probs: bool = False
    num_top_prompt_log_probs: int = 0

    @property
    def tells_of_prompt(self) -> bool:
        """Whether the answer says something without any output."""
        is_returned = self.return_prompt_log_probs or not self.exclude_input_in_output
        return is_returned or self.return_num_input_tokens

    def check_supported(self) -> None:
        """Raise ConfigError for what no engine here does, rather than leave it unheeded."""
        refusals = {
            "bad_words": bool(self.bad_words),
            "beam_width above 1": self.beam_width != 1,
            "num_return_sequences above 1": self.num_return_sequences != 1,
        }
        for name, is_asked in refusals.items():
            if is_asked:
                raise ConfigError(f"{name} is not supported; leave it out.")
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


def read_inputs(values: dict[str, Any]) -> Inputs:
    """Return the checked inputs.

    Raises:
        ConfigError: a name is unknown, a value has the wrong type, or a feature is missing.
    """
    try:
        inputs = Inputs.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {first['msg']}.") from None
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
    limit = opened.engine.limits.max_seq_len
    if len(text) > limit * MAX_BYTES_PER_TOKEN:
        raise ConfigError(
            f"text_input has {len(text)} characters; the engine holds {limit} tokens."
        )
    return tuple(opened.tokenizer.encode(text, add_special_tokens=inputs.add_special_tokens))


def sampling_params(
    inputs: Inputs, num_prompt_tokens: int, max_seq_len: int, vocab_size: int
) -> SamplingParams:
    """Return the sampling; max_tokens is cut to what the engine still holds, its default.

    Raises:
        ConfigError: a value is out of range, or the prompt leaves no room.
    """
    room = max_seq_len - num_prompt_tokens
    if inputs.max_tokens == 0 and not inputs.tells_of_prompt:
        raise ConfigError(
            "max_tokens must be at least 1, got 0: that is for an answer that tells of the prompt "
            "(return_prompt_log_probs, return_num_input_tokens, exclude_input_in_output false)."
        )
    if room < (inputs.max_tokens != 0):
        raise ConfigError(
            f"the prompt has {num_prompt_tokens} tokens; the engine holds {max_seq_len} "
            "with the output."
        )
    is_sampling = inputs.top_k > 1 or inputs.top_p < 1
    temperature = inputs.temperature
    if temperature is None:
        temperature = 1.0 if is_sampling else 0.0  # NVIDIA's backend: greedy unless asked
    end_ids = () if inputs.end_id is None else (inputs.end_id,)
    stop_ids = (*inputs.stop_token_ids, *end_ids)
    if not all(0 <= token < vocab_size for token in stop_ids):
        raise ConfigError(f"stop_token_ids and end_id must be 0 to {vocab_size - 1}.")
    return SamplingParams(
        max_tokens=room if inputs.max_tokens is None else min(inputs.max_tokens, room),
        min_tokens=inputs.min_tokens,
        temperature=temperature,
        top_k=inputs.top_k,
        top_p=inputs.top_p,
        seed=inputs.seed,
        repetition_penalty=inputs.repetition_penalty,
        presence_penalty=inputs.presence_penalty,
        frequency_penalty=inputs.frequency_penalty,
        stop=inputs.stop_words,
        stop_token_ids=stop_ids,
        ignore_eos=inputs.ignore_eos,
        logprobs=inputs.num_top_log_probs if inputs.return_log_probs else None,
        prompt_logprobs=_num_prompt_logprobs(inputs, num_prompt_tokens),
    )


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
) -> Submission:
    """Return the submission for a request's input tensors.

    Raises:
        ConfigError: something in it is wrong or too long.
    """
    now = time.monotonic()
    inputs = read_inputs(values)
    ids = prompt_ids(inputs, opened)
    engine = opened.engine
    params = sampling_params(inputs, len(ids), engine.limits.max_seq_len, engine.vocab_size)
    text = ""
    if not inputs.exclude_input_in_output:
        text = inputs.text_input or (opened.tokenizer.decode(ids) if opened.tokenizer else "")
    deadline = None if inputs.timeout_ms is None else now + inputs.timeout_ms / 1000
    request = Request(request_id, ids, params, _guide(inputs, ids, opened.tokenizer, grammars))
    return Submission(request, inputs, text, now, deadline, owner, deliver)


def _guide(
    inputs: Inputs,
    ids: tuple[int, ...],
    tokenizer: Tokenizer | None,
    grammars: GrammarCompiler | None,
) -> Guide | None:
    """Return what steers the request: a budget while it thinks, a grammar for what it answers."""
    grammar: Guide | None = None
    if inputs.guided_decoding_guide_type:
        if grammars is None:
            raise ConfigError("the engine has no tokenizer; leave out guided_decoding_guide_type.")
        kind, guide = inputs.guided_decoding_guide_type, inputs.guided_decoding_guide or ""
        grammar = grammars.guide(kind, guide)
    if tokenizer is None or (inputs.max_thinking_tokens is None and grammar is None):
        return None
    if not is_reasoning(tokenizer.decode(ids[-TAIL_TOKENS:])):
        return grammar
    limit = math.inf if inputs.max_thinking_tokens is None else inputs.max_thinking_tokens
    thinking = ThinkingBudget(limit, partial(tokenizer.encode, add_special_tokens=False))
    return thinking if grammar is None else AfterThinking(thinking, grammar)
