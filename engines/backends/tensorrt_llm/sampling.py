"""How sampling is spelled in `tensorrt_llm.SamplingParams`, and log-probabilities in its outputs.

Source: TensorRT-LLM's tensorrt_llm/sampling_params.py, 1.2 and 1.3 release candidates.
"""

import math
from typing import Any

from nemotrt.engines.backends.tensorrt_llm.process.news import TokenLogprobs
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.errors import ConfigError
from nemotrt.wire.request import NUMBERS

LARGEST_BIAS = 1e30  # its logits are float32: a sum stays finite
NO_END_ID = -1  # TensorRT-LLM's own value for "nothing ends the sequence"


def check_min_tokens(params: SamplingParams, eos_ids: tuple[int, ...]) -> None:
    """Raise ConfigError where TensorRT-LLM would end a text before its `min_tokens`.

    Source: TensorRT-LLM's _torch/pyexecutor/sampler.py, _apply_min_length_penalty: it forbids
    `end_id` alone; a stop token may come all the same.
    """
    ends = _ends(params, eos_ids)
    if params.min_tokens and len(ends) > 1:
        raise ConfigError(
            f"backend tensorrt-llm keeps one end of sequence from coming before min_tokens; this "
            f"request has {len(ends)}: {', '.join(map(str, ends))}. Leave out min_tokens, or give "
            "ignore_eos."
        )


def _ends(params: SamplingParams, eos_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ids that end the text, the model's own first."""
    eos = () if params.ignore_eos else eos_ids
    return tuple(dict.fromkeys((*eos, *params.stop_token_ids)))


def sampling_fields(params: SamplingParams, eos_ids: tuple[int, ...]) -> dict[str, Any]:
    """Return the keyword arguments.

    Stop strings and text are ours (TextStream), so `detokenize` is off; a stop token is left in the
    output, where we see which it was. `top_k=1` is the one spelling of greedy in every version.
    With `min_tokens` the only end is `end_id`, whosever it is: check_min_tokens().
    """
    ends = _ends(params, eos_ids)
    if params.ignore_eos and not params.min_tokens:
        ends = ()
    stop_ids = [*ends[1:], *(token for token in params.stop_token_ids if token not in ends)]
    fields: dict[str, Any] = {
        "max_tokens": max(1, params.max_tokens),  # it takes no 0: what comes then is dropped
        "end_id": ends[0] if ends else NO_END_ID,
        "pad_id": eos_ids[0] if eos_ids else 0,
        "ignore_eos": not ends,
        "stop_token_ids": stop_ids or None,
        "include_stop_str_in_output": True,
        "detokenize": False,
    }
    if params.temperature == 0:
        fields["top_k"] = 1
    else:
        fields |= {"temperature": params.temperature, "top_p": params.top_p}
        fields |= {"top_k": params.top_k or None, "seed": params.seed}
    if params.min_tokens:
        fields["min_tokens"] = params.min_tokens
    for name, told in NUMBERS.items():
        value = getattr(params, name)
        if value != told.neutral:
            fields[name] = value
    if params.logit_bias:
        fields["embedding_bias"] = _embedding_bias(params)
    if params.prompt_logprobs is not None:
        # Not its own `prompt_logprobs`: of the likeliest tokens some versions give no others, so
        # that the prompt's own tokens are missing among them.
        fields["return_context_logits"] = True
    if params.logprobs is not None:
        fields["logprobs"] = max(1, params.logprobs)  # 0 means none to it
    return fields


def _embedding_bias(params: SamplingParams) -> list[tuple[int, float]]:
    """Return the biases by token, of which TensorRT-LLM's side makes a tensor in float32.

    Those of one token add up.
    """
    biases: dict[int, float] = {}
    for token, value in params.logit_bias:
        biases[token] = biases.get(token, 0.0) + _clipped(value)
    return [(token, _clipped(value)) for token, value in biases.items()]


def _clipped(bias: float) -> float:
    return max(-LARGEST_BIAS, min(bias, LARGEST_BIAS))


def are_finite(found: TokenLogprobs) -> bool:
    """Whether a token's log-probabilities are numbers; None, for "not asked", has none that fail.

    They are all that shows of the LLM's logits, which never leave its processes.
    """
    if found is None:
        return True
    return all(map(math.isfinite, [found] if isinstance(found, float) else found.values()))


def read_logprobs(
    found: TokenLogprobs, token: int, num_top: int | None
) -> tuple[float | None, tuple[tuple[int, float], ...]]:
    """Return a token's log-probability and the `num_top` likeliest, None and () if not asked for.

    `found` maps ids to numbers, the token's own among them; some versions give that one alone. A
    forced token has none.
    """
    if num_top is None or found is None:
        return None, ()
    if isinstance(found, float):
        return found, ()
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return found.get(token), tuple(ranked[:num_top])
