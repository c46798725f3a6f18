"""Gives a request's schema its numbers, of whose ranges wire/ alone tells."""

import math
from dataclasses import replace
from typing import Annotated, Any, TypeVar, get_type_hints

import pydantic

from nemotrt.wire.request import NUMBERS, RANGES, GenerationRequest, Number

Model = TypeVar("Model", bound=pydantic.BaseModel)
HINTS = get_type_hints(GenerationRequest)
# A number that only sampling knows is no text and no boolean.
Plain = Annotated[float, pydantic.Strict(), pydantic.AllowInfNan(False)]


def with_numbers(schema: type[Model]) -> type[Model]:
    """Add each number to a schema that has no field of its name."""
    numbers: dict[str, Any] = {
        name: (Plain if name in NUMBERS else HINTS[name], ranged(told))
        for name, told in (RANGES | NUMBERS).items()
        if name not in schema.model_fields
    }
    return pydantic.create_model(
        schema.__name__,
        __base__=schema,
        __module__=schema.__module__,
        __doc__=schema.__doc__,
        **numbers,
    )


def number_field(name: str, **other: Any) -> Any:
    """Return the field of a request's number; `other` is what the API says otherwise."""
    return ranged(replace(RANGES[name], **other))


def ranged(told: Number) -> Any:
    """Return the field of a number with its range."""
    bounds: dict[str, Any] = {"gt" if told.is_above else "ge": told.least}
    if not math.isinf(told.most):
        bounds |= {"lt": told.most + 1} if told.most >= 2**31 - 1 else {"le": told.most}
    return pydantic.Field(default=told.neutral, description=told.help or None, **bounds)
