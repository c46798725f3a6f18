"""Triton's tensors: the inputs are a request's fields, the outputs have NVIDIA's names too."""

import math
from collections.abc import Callable, Iterable
from ctypes import c_float
from dataclasses import Field, fields
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from nemotrt.wire.request import NUMBERS, TYPE, GenerationRequest


class TensorSpec(NamedTuple):
    """One input or output: its name, Triton's type, and whether it holds many elements."""

    name: str
    type: str
    is_list: bool = False
    rank: int = 1


TYPES = {str: "STRING", int: "INT32", float: "FP32", bool: "BOOL"}


def _input(told: Field[Any], hint: Any) -> TensorSpec:
    """Return the tensor of a request's field."""
    kind = get_args(hint)[0] if isinstance(hint, UnionType) else hint  # the other one is None
    is_list = get_origin(kind) is tuple
    element = get_args(kind)[0] if is_list else kind
    return TensorSpec(told.name, told.metadata.get(TYPE, TYPES[element]), is_list)


_HINTS = get_type_hints(GenerationRequest)
INPUTS = tuple(
    _input(told, _HINTS[told.name])
    for told in sorted(fields(GenerationRequest), key=lambda told: told.name in NUMBERS)
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
    # ours, beside num_input_tokens where the engine keeps prefixes
    TensorSpec("num_cached_tokens", "INT32"),
    # ours, beside num_output_tokens if asked for
    TensorSpec("num_reasoning_tokens", "INT32"),
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


def as_fp32(value: float | None) -> float | None:
    """Return a number as a tensor holds it, so that it is the same where no tensor has been."""
    return None if value is None else c_float(value).value


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
