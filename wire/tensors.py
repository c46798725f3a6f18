"""The model's tensors, with the names of NVIDIA's own frontends; the rest are marked ours.

Source: tensorrtllm_backend, all_models/inflight_batcher_llm/ensemble/config.pbtxt.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class TensorSpec(NamedTuple):
    """One input or output: its name, Triton's type, and whether it holds many elements."""

    name: str
    type: str
    is_list: bool = False
    rank: int = 1


# The plain numbers of sampling, as nemotrt.engines.runtime.sampling.params tells them:
# nothing is imported here.
NUMBERS = ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
INPUTS = (
    TensorSpec("text_input", "STRING"),
    TensorSpec("input_ids", "INT32", is_list=True),  # ours: token ids instead of text
    TensorSpec("max_tokens", "INT32"),
    TensorSpec("min_tokens", "INT32"),
    TensorSpec("stream", "BOOL"),
    TensorSpec("stop", "BOOL"),  # ends the live request that has the same request id
    TensorSpec("stop_words", "STRING", is_list=True),
    TensorSpec("bad_words", "STRING", is_list=True),
    TensorSpec("embedding_bias_words", "STRING", is_list=True),
    TensorSpec("embedding_bias_weights", "FP32", is_list=True),
    TensorSpec("end_id", "INT32"),
    TensorSpec("pad_id", "INT32"),
    TensorSpec("top_k", "INT32"),
    TensorSpec("top_p", "FP32"),
    TensorSpec("temperature", "FP32"),
    TensorSpec("length_penalty", "FP32"),
    TensorSpec("seed", "UINT64"),
    TensorSpec("beam_width", "INT32"),
    TensorSpec("num_return_sequences", "INT32"),
    TensorSpec("exclude_input_in_output", "BOOL"),
    TensorSpec("return_log_probs", "BOOL"),
    TensorSpec("return_num_input_tokens", "BOOL"),
    TensorSpec("return_num_output_tokens", "BOOL"),
    TensorSpec("guided_decoding_guide_type", "STRING"),
    TensorSpec("guided_decoding_guide", "STRING"),
    TensorSpec("num_top_log_probs", "INT32"),  # ours, from here on
    TensorSpec("return_output_ids", "BOOL"),
    TensorSpec("return_progress", "BOOL"),  # num_output_tokens with every response
    TensorSpec("add_special_tokens", "BOOL"),
    TensorSpec("stop_token_ids", "INT32", is_list=True),
    TensorSpec("ignore_eos", "BOOL"),
    TensorSpec("max_thinking_tokens", "INT32"),
    TensorSpec("stop_in_reasoning", "BOOL"),  # stop_words end a reasoning trace too
    TensorSpec("priority", "INT32"),
    TensorSpec("timeout_ms", "INT32"),
    TensorSpec("return_prompt_log_probs", "BOOL"),
    TensorSpec("num_top_prompt_log_probs", "INT32"),
    TensorSpec("logit_bias_ids", "INT32", is_list=True),
    TensorSpec("logit_bias_values", "FP32", is_list=True),
    *(TensorSpec(name, "FP32") for name in NUMBERS),  # NVIDIA's names; it has no min_p
)
OUTPUTS = (
    TensorSpec("text_output", "STRING"),
    TensorSpec("finish_reason", "STRING"),
    TensorSpec("num_input_tokens", "INT32"),
    TensorSpec("num_output_tokens", "INT32"),
    TensorSpec("output_ids", "INT32", is_list=True),
    TensorSpec("cum_log_probs", "FP32"),
    TensorSpec("output_log_probs", "FP32", is_list=True),
    TensorSpec("top_log_prob_ids", "INT32", is_list=True, rank=2),
    TensorSpec("top_log_probs", "FP32", is_list=True, rank=2),
    # ours, with the first response: the prompt; the rest are of its tokens after the first
    TensorSpec("prompt_ids", "INT32", is_list=True),
    TensorSpec("prompt_log_probs", "FP32", is_list=True),
    TensorSpec("prompt_log_prob_ranks", "INT32", is_list=True),
    TensorSpec("top_prompt_log_prob_ids", "INT32", is_list=True, rank=2),
    TensorSpec("top_prompt_log_probs", "FP32", is_list=True, rank=2),
)
# Limits that keep a tensor from the engine's process; that one checks the finer ones.
MIN_ELEMENTS = 1024
MIN_TEXT_BYTES = 1 << 20  # a grammar
MAX_BYTES_PER_TOKEN = 256  # 64 characters, of 4 bytes
INPUT_BY_NAME = {spec.name: spec for spec in INPUTS}
APPENDED = ("text_output", *(spec.name for spec in OUTPUTS if spec.is_list))


def check_elements(name: str, count: int, max_seq_len: Callable[[], int]) -> None:
    """Raise ValueError for more elements than any request needs, before anything walks them.

    The engine is asked for its limit only where a tensor is large.
    """
    if count > MIN_ELEMENTS and count > max_seq_len():
        raise ValueError(f"{name} has {count} elements; the engine holds {max_seq_len()} tokens.")


def check_bytes(name: str, count: int, max_seq_len: Callable[[], int]) -> None:
    """Raise ValueError for a longer text than any request needs."""
    if count > MIN_TEXT_BYTES and count > max_seq_len() * MAX_BYTES_PER_TOKEN:
        raise ValueError(f"{name} has {count} bytes; the engine holds {max_seq_len()} tokens.")


def input_value(name: str, elements: Iterable[Any]) -> Any:
    """Return an input tensor's flat elements as the JSON value that the wire carries.

    Raises:
        ValueError: the name is unknown, the count is wrong, a string is not UTF-8, or a number
            is not finite.
    """
    spec = INPUT_BY_NAME.get(name)
    if spec is None:
        raise ValueError(f"the model has no input {name!r}.")
    values = [_plain(name, element) for element in elements]
    if spec.is_list:
        return values
    if len(values) != 1:
        raise ValueError(f"{name} must have 1 element, got {len(values)}.")
    return values[0]


def _plain(name: str, element: Any) -> Any:
    """Return a string for Triton's bytes, and a finite number or a boolean as it is."""
    if isinstance(element, float) and not math.isfinite(element):
        raise ValueError(f"{name} must be a finite number, got {element}.")
    if not isinstance(element, bytes):
        return element
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error.reason} at byte {error.start}.") from None


def merge(older: dict[str, Any], newer: dict[str, Any]) -> None:
    """Add the fields of a later update to those of an earlier one, in place.

    Lists of `older` grow themselves, and a text is taken out while it grows: then it has one
    owner, and Python adds to its end. Both would else be copied whole at every token.
    """
    for name, value in newer.items():
        if name not in APPENDED or name not in older:
            older[name] = value
        elif isinstance(value, list):
            older[name].extend(value)
        else:
            text = older.pop(name)
            text += value
            older[name] = text
