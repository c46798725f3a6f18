"""OpenAI's `logit_bias`: an object of token ids, as texts, to numbers from -100 to 100."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from nemotrt.engines.runtime.sampling.limits import MAX_BIASES

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
