"""Gives a request's schema its numbers, of whose ranges wire/ alone tells, and its biases.

`logit_bias` is OpenAI's: an object of token ids, as texts, to numbers from -100 to 100.
"""

import math
import re
from dataclasses import replace
from typing import Annotated, Any, TypeVar, get_type_hints

import pydantic
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from nemotrt.engines.runtime.sampling.limits import MAX_BIASES
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
    return numeric(default=told.neutral, description=told.help or None, **bounds)


def numeric(**told: Any) -> Any:
    """Return the field of a number, which no boolean is; Python counts them among the integers."""
    field = pydantic.Field(**told)
    field.metadata.append(BeforeValidator(_no_boolean))  # around the bounds, which stay the type's
    return field


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("no_number", "Input should be a number, not a boolean")
    return value


LARGEST = 100  # Source: OpenAI's API reference; it bans a token (-100) or leaves no other (100)
TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


def _check(value: Any) -> Any:
    """Return the biases as they came.

    One message for whatever is wrong, with the field's name alone: pydantic would add a user's key
    to it.
    """
    if not isinstance(value, dict):
        raise _fault("Input should be an object of token ids and biases")
    if len(value) > MAX_BIASES:
        raise _fault(f"{len(value)} entries; the limit is {MAX_BIASES}")
    for token, bias in value.items():
        if not (isinstance(token, str) and TOKEN_ID.fullmatch(token)):
            raise _fault(f"a key should be a token id such as '42', got {_short(token)}")
        is_number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not (is_number and -LARGEST <= bias <= LARGEST):
            raise _fault(f"a bias should be a number from -100 to 100, got {_short(bias)}")
    return value


def _fault(message: str) -> PydanticCustomError:
    """Return the error; a brace in what a user wrote is no placeholder."""
    return PydanticCustomError("logit_bias", "{message}", {"message": message})  # type: ignore[arg-type, unused-ignore]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


LogitBias = Annotated[
    dict[
        Annotated[str, Field(pattern=f"^(?:{TOKEN_ID.pattern})$")],
        Annotated[float, Field(ge=-LARGEST, le=LARGEST)],
    ],
    BeforeValidator(_check),
    Field(json_schema_extra={"maxProperties": MAX_BIASES, "additionalProperties": False}),
]
