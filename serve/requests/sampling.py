"""From a request's inputs to the sampling that the scheduler takes."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.errors import ConfigError
from nemotrt.serve.requests.limits import (
    MAX_BIAS_CHARACTERS,
    MAX_PROMPT_LOG_PROBS,
    check_count,
    check_room,
)
from nemotrt.wire.request import DEFAULTS, GenerationRequest

Biases = tuple[tuple[int, float], ...]
Encode = Callable[[str], Sequence[int]]
SAMPLING = {item.name for item in fields(SamplingParams)}


def sampling_params(
    inputs: GenerationRequest,
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
    if inputs.max_tokens == 0 and not _tells_of_prompt(inputs):
        raise ConfigError(
            "max_tokens must be at least 1, got 0: that is for an answer that tells of the prompt "
            "(return_prompt_log_probs, return_num_input_tokens, exclude_input_in_output false)."
        )
    room = check_room(num_prompt_tokens, max_seq_len, min_output=int(inputs.max_tokens != 0))
    is_sampling = inputs.top_k > 1 or inputs.top_p < 1 or inputs.min_p > 0
    temperature = inputs.temperature
    if temperature is None:
        temperature = 1.0 if is_sampling else 0.0  # NVIDIA's backend: greedy unless asked
    end_ids = () if inputs.end_id is None else (inputs.end_id,)
    stop_ids = (*inputs.stop_token_ids, *end_ids)
    if not all(0 <= token < vocab_size for token in stop_ids):
        raise ConfigError(f"stop_token_ids and end_id must be 0 to {vocab_size - 1}.")
    own: dict[str, Any] = {
        "max_tokens": room if inputs.max_tokens is None else min(inputs.max_tokens, room),
        "temperature": temperature,
        "logit_bias": (
            *_biases_of_ids(inputs.logit_bias_ids, inputs.logit_bias_values),
            *_biases_of_words(inputs.embedding_bias_words, inputs.embedding_bias_weights, encode),
        ),
        "stop": tuple(word for word in inputs.stop_words if word),
        "stop_token_ids": stop_ids,
        "logprobs": inputs.num_top_log_probs if inputs.return_log_probs else None,
        "prompt_logprobs": _num_prompt_logprobs(inputs, num_prompt_tokens),
    }
    same = {name: getattr(inputs, name) for name in DEFAULTS if name in SAMPLING}
    params = SamplingParams(**same | own)
    params.check_ids(vocab_size)
    return params


def _num_prompt_logprobs(inputs: GenerationRequest, num_prompt_tokens: int) -> int | None:
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


def _tells_of_prompt(inputs: GenerationRequest) -> bool:
    """Whether the answer says something without any output."""
    is_returned = inputs.return_prompt_log_probs or not inputs.exclude_input_in_output
    return is_returned or inputs.return_num_input_tokens


def _biases_of_ids(ids: Sequence[int], values: Sequence[float]) -> Biases:
    """Return each id with its bias.

    Raises:
        ConfigError: there are not as many of both.
    """
    _check_pairs("logit_bias_ids", ids, "logit_bias_values", values)
    return tuple(zip(ids, values, strict=True))


def _biases_of_words(
    words: Sequence[str], weights: Sequence[float], encode: Encode | None
) -> Biases:
    """Return each token of each word with the word's weight; empty words alone ask for nothing.

    Source: NVIDIA's tensorrtllm_backend, preprocessing/1/model.py, _get_embedding_bias; it also
    biases the special tokens that its tokenizer puts before a word.

    Raises:
        ConfigError: there are not as many of both, they are too long, or there is no tokenizer.
    """
    if not any(words) and not weights:
        return ()
    _check_pairs("embedding_bias_words", words, "embedding_bias_weights", weights)
    if encode is None:
        raise ConfigError(
            "the engine has no tokenizer; give logit_bias_ids, no embedding_bias_words."
        )
    check_count(
        "embedding_bias_words", sum(map(len, words)), MAX_BIAS_CHARACTERS, "characters in all"
    )
    pairs = zip(words, weights, strict=True)
    return tuple((token, weight) for word, weight in pairs for token in encode(word))


def _check_pairs(left: str, many: Sequence[object], right: str, others: Sequence[float]) -> None:
    """Raise ConfigError unless there is one value for each."""
    if len(many) != len(others):
        raise ConfigError(
            f"{left} has {len(many)} entries and {right} {len(others)}; give one value for each."
        )
