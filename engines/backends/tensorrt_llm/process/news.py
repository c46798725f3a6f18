"""What TensorRT-LLM's process says of its requests, checked: its frames are external input."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from nemotrt.engines.runtime.sampling.params import Floats
from nemotrt.files.model_file import Strict
from nemotrt.wire.frames import Frame

Count = Annotated[int, pydantic.Field(ge=0)]
Number = float | Literal["nan"]
Pair = Annotated[tuple[Count, Number], pydantic.Field(strict=False)]  # JSON has lists alone
TokenLogprobs = Mapping[int, float] | float | None


class Fault(Strict, strict=True):
    """Why a request ended: a fault of its own, or one that no request survives."""

    kind: Literal["request", "fatal"]
    message: str


class _Item(Strict, strict=True):
    id: Count
    ids: list[Count] = pydantic.Field(default_factory=list)
    logprobs: list[list[Pair] | Number | None] = pydantic.Field(default_factory=list)
    finish_reason: str | None = None
    cached_tokens: Count | None = None
    fault: Fault | None = None


class _Rows(Strict, strict=True):
    op: Literal["rows"]
    id: Count
    start: Count
    num_rows: Count
    vocab_size: Annotated[int, pydantic.Field(ge=1)]
    num_bytes: Count


@dataclass(frozen=True, slots=True)
class ContextRows:
    """Logits of a prompt [tokens from `start` on, vocab]; the prompt has `num_rows` in all."""

    start: int
    num_rows: int
    logits: Floats


@dataclass(frozen=True, slots=True)
class Gained:
    """What a request gained: token ids, what each had for log-probabilities, and how it ended.

    `rows` come alone, before the tokens, if they were asked for. `cached_tokens` of the prompt were
    not computed, as the LLM counts them; with the first tokens alone.
    """

    number: int
    ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: str | None = None
    fault: Fault | None = None
    cached_tokens: int | None = None
    rows: ContextRows | None = None


def read_news(frame: Frame, data: bytes, vocab_size: int) -> list[Gained]:
    """Return what a frame brings.

    Raises:
        ConnectionError: it is not of the protocol.
        ValueError: a value is of another type or out of range.
    """
    if frame.get("op") == "rows":
        rows = _Rows.model_validate(frame)
        if len(data) % (4 * rows.vocab_size):
            raise ConnectionError(f"{len(data)} bytes are no rows of logits.")
        logits = np.frombuffer(data, np.float32).reshape(-1, rows.vocab_size)
        return [Gained(rows.id, rows=ContextRows(rows.start, rows.num_rows, logits))]
    if frame.get("op") != "gained" or not isinstance(frame.get("items"), list):
        raise ConnectionError(f"a frame is no news: {frame.get('op')!r}.")
    items = [_Item.model_validate(item) for item in frame["items"]]
    if any(token >= vocab_size for item in items for token in item.ids):
        raise ConnectionError(f"a token id is not below {vocab_size}.")
    return [
        Gained(
            item.id,
            tuple(item.ids),
            tuple(map(_logprobs, item.logprobs)),
            item.finish_reason,
            item.fault,
            item.cached_tokens,
        )
        for item in items
    ]


def _logprobs(found: Any) -> TokenLogprobs:
    """Return a token's log-probabilities as numbers."""
    if isinstance(found, list):
        return {token: math.nan if value == "nan" else value for token, value in found}
    return math.nan if found == "nan" else found
