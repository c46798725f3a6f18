"""How sampling is spelled in `tensorrt_llm.SamplingParams`, and log-probabilities in its outputs.

Source: TensorRT-LLM's tensorrt_llm/sampling_params.py, 1.2 and 1.3 release candidates.
"""

import math
from typing import Any

import numpy as np

from nemotrt.engines.runtime.sampling.params import Floats, SamplingParams
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


def sampling_fields(
    params: SamplingParams, eos_ids: tuple[int, ...], vocab_size: int
) -> dict[str, Any]:
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
        fields["embedding_bias"] = _embedding_bias(params, vocab_size)
    if params.prompt_logprobs is not None:
        # Not its own `prompt_logprobs`: of the likeliest tokens some versions give no others, so
        # that the prompt's own tokens are missing among them.
        fields["return_context_logits"] = True
    if params.logprobs is not None:
        fields["logprobs"] = max(1, params.logprobs)  # 0 means none to it
    return fields


def _embedding_bias(params: SamplingParams, vocab_size: int) -> Any:
    """Return the biases as a torch tensor [vocab] in float32; those of one token add up."""
    import torch

    bias = np.zeros(vocab_size)
    tokens, values = zip(*params.logit_bias, strict=True)
    np.add.at(bias, list(tokens), np.clip(values, -LARGEST_BIAS, LARGEST_BIAS))
    return torch.from_numpy(np.clip(bias, -LARGEST_BIAS, LARGEST_BIAS).astype(np.float32))


def are_finite(found: Any) -> bool:
    """Whether a token's log-probabilities are numbers; None, for "not asked", has none that fail.

    They are all that shows of the LLM's logits, which never leave its processes.
    """
    if found is None:
        return True
    if isinstance(found, float):
        return math.isfinite(found)
    return all(math.isfinite(entry.logprob) for entry in found.values())


def read_logprobs(
    found: Any, token: int, num_top: int | None
) -> tuple[float | None, tuple[tuple[int, float], ...]]:
    """Return a token's log-probability and the `num_top` likeliest, None and () if not asked for.

    `found` maps ids to objects with a `logprob`, the token's own among them; some versions give
    that one alone, as a number. A forced token has none.
    """
    if num_top is None or found is None:
        return None, ()
    if isinstance(found, float):
        return found, ()
    ranked = sorted(found.items(), key=lambda item: -item[1].logprob)
    top = tuple((int(name), float(entry.logprob)) for name, entry in ranked[:num_top])
    chosen = found.get(token)
    return None if chosen is None else float(chosen.logprob), top


def context_rows(found: Any, shape: tuple[int, int]) -> Floats:
    """Return the logits of a prompt [tokens, vocab], given as a torch tensor.

    Raises:
        ValueError: there are none, or others than the prompt's (of a prefix that was reused).
    """
    if found is None or tuple(found.shape) != shape:
        given = "none" if found is None else f"{tuple(found.shape)}"
        raise ValueError(f"TensorRT-LLM gave no context logits of shape {shape}: {given}.")
    rows: Floats = np.asarray(found.float().cpu())
    return rows
