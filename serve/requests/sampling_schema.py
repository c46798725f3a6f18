"""Gives a request's schema the plain numbers of sampling, which SamplingParams alone tells of."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import pydantic

from nemotrt.engines.runtime.sampling.number import Number
from nemotrt.engines.runtime.sampling.params import NUMBERS

Model = TypeVar("Model", bound=pydantic.BaseModel)


def with_numbers(*, has_bounds: bool) -> Callable[[type[Model]], type[Model]]:
    """Return what adds each number to a schema that has no field of its name.

    Without bounds the schema leaves it to SamplingParams to say what is out of range.
    """

    def add(schema: type[Model]) -> type[Model]:
        numbers: dict[str, Any] = {
            name: (float, _bounded(told) if has_bounds else told.neutral)
            for name, told in NUMBERS.items()
            if name not in schema.model_fields
        }
        return pydantic.create_model(
            schema.__name__,
            __base__=schema,
            __module__=schema.__module__,
            __doc__=schema.__doc__,
            **numbers,
        )

    return add


def _bounded(told: Number) -> Any:
    """Return the field of a number: no boolean, no text, within its range."""
    bounds: dict[str, Any] = {"gt" if told.is_above else "ge": told.least}
    if not math.isinf(told.most):
        bounds["le"] = told.most
    return pydantic.Field(
        default=told.neutral, strict=True, allow_inf_nan=False, description=told.help, **bounds
    )
