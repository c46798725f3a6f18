"""The OpenAPI document with what it can't know: the name of the model that is served."""

import copy
from typing import Any

from nemotrt.serve.front.schema.openapi import openapi_document

Json = dict[str, Any]


def described(model: str = "llm", max_tokens: int = 8) -> Json:
    """Return the document for requests that a small engine answers soon."""
    document = copy.deepcopy(openapi_document())
    for schema in document["components"]["schemas"].values():
        fields = schema.get("properties", {})
        if "messages" in fields or "prompt" in fields or "input" in fields or "tokens" in fields:
            fields["model"] = {"const": model}
        for name in ("max_tokens", "max_output_tokens", "max_completion_tokens"):
            if name in fields:
                fields[name] = {"type": "integer", "minimum": 1, "maximum": max_tokens}
    return document
