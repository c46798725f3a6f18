"""Gives a request's schema the plain numbers of sampling, which wire/ alone tells of."""

import math
from typing import Any, TypeVar

import pydantic

from nemotrt.wire.request import NUMBERS, Number

Model = TypeVar("Model", bound=pydantic.BaseModel)


def with_numbers(schema: type[Model]) -> type[Model]:
    """Add each number to a schema that has no field of its name."""
    numbers: dict[str, Any] = {
        name: (float, _bounded(told))
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


def _bounded(told: Number) -> Any:
    """Return the field of a number: no boolean, no text, within its range."""
    bounds: dict[str, Any] = {"gt" if told.is_above else "ge": told.least}
    if not math.isinf(told.most):
        bounds["le"] = told.most
    return pydantic.Field(
        default=told.neutral, strict=True, allow_inf_nan=False, description=told.help, **bounds
    )
