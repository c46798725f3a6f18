"""A request's tensors, checked: each has an effect, can't change the answer, or is refused."""

from typing import Any, get_type_hints

import pydantic

from nemotrt.engines.runtime.sampling.limits import MAX_BIASES
from nemotrt.errors import ConfigError
from nemotrt.files.model_file import place
from nemotrt.serve.requests.limits import (
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    check_adapter,
    check_count,
    check_room,
    check_salt,
    check_stops,
)
from nemotrt.wire.request import DEFAULTS, RANGES, GenerationRequest
from nemotrt.wire.tensors import INPUTS

BIAS_LISTS = (
    "embedding_bias_words",
    "embedding_bias_weights",
    "logit_bias_ids",
    "logit_bias_values",
)
HINTS = get_type_hints(GenerationRequest)
# What the wire carries: a list there is a tuple here, everything else is of its very type.
_TENSORS: dict[str, Any] = {
    spec.name: (
        HINTS[spec.name],
        pydantic.Field(default=DEFAULTS[spec.name], strict=not spec.is_list),
    )
    for spec in INPUTS
}
Inputs = pydantic.create_model(
    "Inputs", __config__=pydantic.ConfigDict(extra="forbid", strict=True), **_TENSORS
)


def read_inputs(values: dict[str, Any], max_seq_len: int) -> GenerationRequest:
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
        request = GenerationRequest(**dict(Inputs.model_validate(values)))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{place(first)}: {first['msg']}.") from None
    check_stops("stop_words", request.stop_words)
    check_stops("bad_words", request.bad_words)
    check_salt(request.cache_salt)
    check_adapter(request.lora_name)
    _check_supported(request)
    return request


def _check_supported(request: GenerationRequest) -> None:
    """Raise ConfigError for what no engine here does, rather than leave it unheeded."""
    refusals = {
        "beam_width above 1": request.beam_width != 1,
        "length_penalty": request.length_penalty != 1,
        "num_return_sequences above 1": request.num_return_sequences != 1,
    }
    for name, is_asked in refusals.items():
        if is_asked:
            raise ConfigError(f"{name} is not supported; leave it out.")
    if request.guided_decoding_guide and not request.guided_decoding_guide_type:
        raise ConfigError("guided_decoding_guide needs guided_decoding_guide_type; give both.")
    for name in ("timeout_ms", "max_thinking_tokens"):
        value, least = getattr(request, name), RANGES[name].least
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}.")
    if request.num_top_log_probs and not request.return_log_probs:
        raise ConfigError("num_top_log_probs needs return_log_probs.")
    if request.num_top_prompt_log_probs and not request.return_prompt_log_probs:
        raise ConfigError("num_top_prompt_log_probs needs return_prompt_log_probs.")
