"""The OpenAPI document, made from the request schemas."""

import json
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from nemotrt.serve.front.http.bounded_http import BODY_S, HEAD_S, MAX_HEAD_BYTES, MAX_HEADERS
from nemotrt.serve.front.schema.requests import ChatRequest, CompletionRequest

Json = dict[str, Any]
REFERENCE = "#/components/schemas/{model}"
ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
ERRORS = {
    "400": "The request is wrong.",
    "401": "There is no valid API key.",
    "404": "There is no such model.",
    "408": f"The headers took more than {HEAD_S:g} s, or the body more than {BODY_S:g} s.",
    "413": "The body is too large.",
    "431": f"There are more than {MAX_HEADERS} headers or {MAX_HEAD_BYTES} bytes of them.",
    "503": "Try again later.",
    "504": "The request's own deadline is over.",
}


@cache
def openapi_bytes() -> bytes:
    """Return the document as JSON, made once."""
    return json.dumps(openapi_document()).encode()


@cache
def openapi_document() -> Json:
    """Return the document."""
    bodies = (ChatRequest, CompletionRequest)
    _, schemas = models_json_schema(
        [(body, "validation") for body in bodies], ref_template=REFERENCE
    )
    chat, completion = (REFERENCE.format(model=body.__name__) for body in bodies)
    definitions = schemas["$defs"] | {"Error": ERROR_SCHEMA}
    return {
        "openapi": "3.1.0",
        "info": {"title": "nemotrt", "version": version("nemotrt")},
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/chat/completions": {"post": _post("createChatCompletion", chat)},
            "/v1/completions": {"post": _post("createCompletion", completion)},
            "/v1/models": {"get": _get("listModels", ("401",))},
            "/v1/models/{name}": {"get": _get("getModel", ("401", "404"), parameter="name")},
            "/health": {"get": _get("health", ("503",))},
            "/health/ready": {"get": _get("ready", ("503",))},
            "/health/live": {"get": _get("live", ())},
        },
        "components": {
            "schemas": definitions,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _post(operation: str, reference: str) -> Json:
    """Return an operation that takes a body and gives JSON or events."""
    answer = {
        "description": "The answer; with `stream`, server-sent events.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": reference}}}}
    return {
        "operationId": operation,
        "requestBody": body,
        "responses": {"200": answer, **_errors(tuple(ERRORS))},
    }


def _get(operation: str, errors: tuple[str, ...], parameter: str | None = None) -> Json:
    """Return an operation without a body."""
    answer = {
        "description": "As the name says.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    get: Json = {"operationId": operation, "responses": {"200": answer, **_errors(errors)}}
    if parameter is not None:
        schema = {"type": "string"}
        get["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": schema}]
    return get


def _errors(statuses: tuple[str, ...]) -> Json:
    """Return the error responses; a server that is starting says so without an error body."""
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model="Error")}}}
    errors: Json = {s: {"description": ERRORS[s], "content": content} for s in statuses}
    if statuses == ("503",):
        errors["503"] = {"description": "The server is starting."}
    return errors
