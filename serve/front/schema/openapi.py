"""The OpenAPI document, made from the request schemas."""

import json
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from nemotrt.serve.front.http.api_error import ANTHROPIC_PATH
from nemotrt.serve.front.http.connections.bounded_http import (
    BODY_S,
    HEAD_S,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
)
from nemotrt.serve.front.schema.anthropic import CountRequest, MessagesRequest
from nemotrt.serve.front.schema.requests import ChatRequest, CompletionRequest
from nemotrt.serve.front.schema.responses import ResponsesRequest
from nemotrt.serve.front.schema.tokens import DetokenizeRequest, TokenizeRequest
from nemotrt.serve.requests.endpoints import Endpoint

Json = dict[str, Any]
ANTHROPIC = "AnthropicError"
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
ANTHROPIC_ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
EVENT_SCHEMA: Json = {  # of each event
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}
# What takes a body: the operation, its schema, and whether its answer may be streamed.
POSTS: dict[Endpoint, tuple[str, type[BaseModel], bool]] = {
    Endpoint.CHAT: ("createChatCompletion", ChatRequest, True),
    Endpoint.CHAT_TOKENS: ("countChatTokens", ChatRequest, False),
    Endpoint.COMPLETIONS: ("createCompletion", CompletionRequest, True),
    Endpoint.RESPONSES: ("createResponse", ResponsesRequest, True),
    Endpoint.RESPONSE_TOKENS: ("countResponseTokens", ResponsesRequest, False),
    Endpoint.MESSAGES: ("createMessage", MessagesRequest, True),
    Endpoint.COUNT_TOKENS: ("countTokens", CountRequest, False),
    Endpoint.TOKENIZE: ("tokenize", TokenizeRequest, False),
    Endpoint.DETOKENIZE: ("detokenize", DetokenizeRequest, False),
}
ERRORS = {
    "400": "The request is wrong.",
    "401": "There is no valid API key.",
    "403": "The Host is none of this server's.",
    "404": "There is no such model.",
    "408": f"The headers took more than {HEAD_S:g} s, or the body more than {BODY_S:g} s.",
    "413": "The body is too large.",
    "415": "The body is not said to be JSON.",
    "431": f"There are more than {MAX_HEADERS} headers or {MAX_HEAD_BYTES} bytes of them.",
    "500": "The engine has failed; the server's log says more.",
    "503": "Try again later.",
    "504": "The request's own deadline is over.",
}
ANY_REQUEST = ("403", "408", "413", "431")  # what is judged before the path is
HEADERS = {"401": "WWW-Authenticate", "503": "Retry-After"}
RESPONSE_ID = "$response.body#/id"


@cache
def openapi_bytes() -> bytes:
    """Return the document as JSON, made once."""
    return json.dumps(openapi_document()).encode()


@cache
def openapi_document() -> Json:
    """Return the document."""
    _, schemas = models_json_schema(
        [(body, "validation") for _, body, _ in POSTS.values()], ref_template=REFERENCE
    )
    definitions = schemas["$defs"] | {"Error": ERROR_SCHEMA, ANTHROPIC: ANTHROPIC_ERROR_SCHEMA}
    return {
        "openapi": "3.1.0",
        "info": {"title": "nemotrt", "version": version("nemotrt")},
        "security": [{"key": []}, {"anthropic": []}, {}],
        "paths": {
            **{str(path): {"post": _post(path, *told)} for path, told in POSTS.items()},
            "/v1/responses/{name}": {
                "get": _get("getResponse", ("400", "401", "404"), parameter="name"),
                "delete": _get("deleteResponse", ("401", "404"), parameter="name"),
            },
            "/v1/responses/{name}/cancel": {
                "post": _get("cancelResponse", ("400", "401", "404"), parameter="name", ends=False)
            },
            "/v1/models": {"get": _get("listModels", ("401",), links=_links("getModel"))},
            "/v1/models/{name}": {"get": _get("getModel", ("401", "404"), parameter="name")},
            "/health": {"get": _get("health", ("503",))},
            "/health/ready": {"get": _get("ready", ("503",))},
            "/health/live": {"get": _get("live", ())},
            "/ping": {"get": _get("ping", ("503",)), "post": _get("pingByPost", ("503",))},
            "/version": {"get": _get("version", ("401",))},
            "/metrics": {"get": _get("metrics", ("401", "404", "503"), media="text/plain")},
            "/openapi.json": {"get": _get("document", ("401",))},
            "/docs": {"get": _get("documentPage", ("401",), media="text/html")},
            "/": {"get": _get("chatPage", ("401",), media="text/html")},
            "/page/{name}": {
                "get": _get("pageFile", ("401", "404"), parameter="name", media="*/*")
            },
        },
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "anthropic": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _post(path: str, operation: str, schema: type[BaseModel], may_stream: bool) -> Json:
    """Return an operation that takes a body and gives JSON, or events where it may stream."""
    content: Json = {"application/json": {"schema": {"type": "object"}}}
    if may_stream:
        content["text/event-stream"] = {"schema": EVENT_SCHEMA}
    told = "The answer; with `stream`, server-sent events." if may_stream else "The answer."
    reference = {"$ref": REFERENCE.format(model=schema.__name__)}
    error = ANTHROPIC if path.startswith(ANTHROPIC_PATH) else "Error"
    answer: Json = {"description": told, "content": content}
    if schema is ResponsesRequest and may_stream:
        answer["links"] = _links("getResponse", "deleteResponse")
        onward = {"operationId": operation, "requestBody": {"previous_response_id": RESPONSE_ID}}
        answer["links"]["goOn"] = onward
    return {
        "operationId": operation,
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": _responses(answer, tuple(ERRORS), error),
    }


def _get(
    operation: str,
    errors: tuple[str, ...],
    *,
    parameter: str | None = None,
    media: str = "application/json",
    links: Json | None = None,
    ends: bool = True,
) -> Json:
    """Return an operation without a body; one that never `ends` well has errors alone."""
    schema = {"type": "object" if media == "application/json" else "string"}
    answer: Json = {"description": "As the name says.", "content": {media: {"schema": schema}}}
    if links is not None:
        answer["links"] = links
    get: Json = {"operationId": operation, "responses": _responses(answer, errors)}
    if not ends:
        del get["responses"]["200"]
    if parameter is not None:
        schema = {"type": "string"}
        get["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": schema}]
    return get


def _links(*operations: str) -> Json:
    """Return where an answer's id leads."""
    place = "$response.body#/data/0/id" if operations == ("getModel",) else RESPONSE_ID
    return {name: {"operationId": name, "parameters": {"name": place}} for name in operations}


def _responses(answer: Json, errors: tuple[str, ...], model: str = "Error") -> Json:
    """Return an answer, and the errors; a server that is starting says so without an error body."""
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=model)}}}
    told: Json = {"200": answer}
    for status in sorted({*errors, *ANY_REQUEST}):
        told[status] = {"description": ERRORS[status], "content": content}
    if errors == ("503",):
        told["503"] = {"description": "The server is starting."}
    for status, response in told.items():
        names = filter(None, ("X-Request-Id", HEADERS.get(status)))
        schema: Json = {"schema": {"type": "string"}}
        is_early = status in ANY_REQUEST
        response["headers"] = {name: schema | {"required": not is_early} for name in names}
    return told
