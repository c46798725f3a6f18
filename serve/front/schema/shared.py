"""What every door to a chat takes by the names, and with the ranges, of the chat's own body."""

from typing import Any, TypeVar

import pydantic

from nemotrt.serve.front.schema.requests import ChatRequest
from nemotrt.serve.front.schema.structured import Guided
from nemotrt.wire.request import NUMBERS

Model = TypeVar("Model", bound=pydantic.BaseModel)
# A closed list: what a chat takes has no place in every door's answer.
SHARED = (
    *NUMBERS,
    "top_p",
    "top_k",
    "seed",
    "logit_bias",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "bad_words",
    "structured_outputs",
    *Guided.model_fields,
    "thinking_token_budget",
    "max_thinking_tokens",
    "chat_template_kwargs",
    "cache_salt",
    "priority",
    "timeout_ms",
)


def with_shared(schema: type[Model]) -> type[Model]:
    """Add each of the chat's fields to a schema that has none of its name."""
    own = ChatRequest.model_fields
    told: dict[str, Any] = {
        name: (own[name].annotation, own[name])
        for name in SHARED
        if name not in schema.model_fields
    }
    return pydantic.create_model(
        schema.__name__,
        __base__=schema,
        __module__=schema.__module__,
        __doc__=schema.__doc__,
        **told,
    )


def shared_fields(body: pydantic.BaseModel) -> dict[str, Any]:
    """Return the fields that a body gives, as the chat's body takes them."""
    return {name: getattr(body, name) for name in SHARED if name in body.model_fields_set}
