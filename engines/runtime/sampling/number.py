"""A plain number of a request's sampling, described once for every door that takes it.

A field of `SamplingParams` made by `number` has one name everywhere: the command line's option, the
API's field, Triton's input and TensorRT-LLM's argument follow from it.
"""

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any

KEY = "number"


@dataclass(frozen=True, slots=True)
class Number:
    """What a number may be, from `least` to `most`, and the value that changes nothing."""

    neutral: float
    least: float
    most: float
    is_above: bool  # `least` itself is not allowed
    help: str

    def allows(self, value: float) -> bool:
        """Whether a request may have `value`; NaN and infinity never."""
        is_enough = value > self.least if self.is_above else value >= self.least
        return is_enough and value <= self.most and math.isfinite(value)

    @property
    def legal(self) -> str:
        """The legal values in words."""
        least = f"above {self.least:g}" if self.is_above else f"{self.least:g}"
        if math.isinf(self.most):
            return least if self.is_above else f"{least} or more"
        return f"{least}, at most {self.most:g}" if self.is_above else f"{least} to {self.most:g}"


def number(
    neutral: float, least: float, most: float = math.inf, *, is_above: bool = False, help: str
) -> Any:
    """Return the dataclass field of a plain number; the arguments are Number's."""
    told = Number(neutral, least, most, is_above, help)
    return field(default=neutral, metadata={KEY: told})


def numbers_of(params: type) -> dict[str, Number]:
    """Return the plain numbers of a dataclass by name."""
    found: tuple[Field[Any], ...] = fields(params)
    return {item.name: item.metadata[KEY] for item in found if KEY in item.metadata}
