"""Errors as the clients of each door expect them."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from nemotrt.serve.front.upstream.upstream import UpstreamError
from nemotrt.serve.requests.endpoints import Endpoint
from nemotrt.serve.requests.limits import CONTEXT_LENGTH_EXCEEDED
from nemotrt.wire.request import NUMBERS

# Reason behind the front -> HTTP status. 503 asks a client to come again.
STATUS = {
    "invalid_request": 400,
    CONTEXT_LENGTH_EXCEEDED: 400,
    "answer_too_large": 400,
    "deadline_exceeded": 504,
    "queue_full": 503,
    "queue_timeout": 503,
    "shutting_down": 503,
    "engine_unavailable": 503,
    "engine_failed": 500,
    "logits_not_finite": 500,
}
# Fields that the engine judges too: they have the same name behind the front.
SHARED_FIELDS = {"logit_bias", "max_tokens", "min_tokens", "stop_token_ids", *NUMBERS}
GRAMMAR_REFUSED = re.compile(r"the \w+ grammar is refused: ")  # as serve/grammar/compile.py says
ANTHROPIC_PATH = Endpoint.MESSAGES.value
# Source: Anthropic's API reference, errors; a client tries the last two again.
ANTHROPIC_KINDS = {
    **dict.fromkeys((400, 405, 408, 415, 431), "invalid_request_error"),
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}
HEADERS = {401: {"WWW-Authenticate": 'Basic realm="nemotrt"'}, 503: {"Retry-After": "1"}}


class ApiError(Exception):
    """A request that is answered with an error; `param` names the field at fault."""

    def __init__(
        self, status: int, message: str, *, code: str = "invalid_request", param: str | None = None
    ) -> None:
        """Keep what the answer says."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    def __reduce__(self) -> tuple[Any, ...]:
        """Pass to another process with all that it says."""
        return partial(ApiError, code=self.code, param=self.param), (self.status, self.message)

    def renamed(self, names: Mapping[str, str]) -> "ApiError":
        """Return the error of a door that has other `names` for a chat's fields."""
        param, message = self.param or "", self.message
        for chats, own in names.items():
            if param == chats:
                param, message = own, re.sub(rf"^{re.escape(chats)}\b", own, message)
            elif param.startswith(f"{chats}."):
                param, message = own, f"{own}, as a chat has it: {message}"
        return ApiError(self.status, message, code=self.code, param=param or None)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def body_for(self, path: str) -> dict[str, Any]:
        """Return the JSON body in the form of the door at `path`: Anthropic's or OpenAI's."""
        if not path.startswith(ANTHROPIC_PATH):
            return self.body
        kind = ANTHROPIC_KINDS.get(self.status, "api_error")
        details = {"error_code": self.code}
        told = {"type": kind, "message": self.message, "details": details}
        return {"type": "error", "error": told}

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; its line in the log has the code, not the message, which may quote."""
        note_error(scope, self)
        await self.response(scope["path"])(scope, receive, send)

    def response(self, path: str = "/") -> JSONResponse:
        """Return the HTTP response."""
        return JSONResponse(self.body_for(path), self.status, HEADERS.get(self.status))


def note_error(scope: Scope, error: ApiError) -> None:
    """Keep an error's code for the line of its request."""
    scope.setdefault("state", {})["error"] = error.code


def from_upstream(
    error: UpstreamError, prompt: str | None = None, guide: str | None = None
) -> ApiError:
    """Return the API's error for one from behind the front.

    A message about a field begins with its name, which is the same there. `prompt` is the field of
    the prompt, `guide` that of the answer's form, from which a grammar was made.
    """
    subject = error.message.partition(" ")[0]
    param = subject if subject in SHARED_FIELDS else None
    if error.code == CONTEXT_LENGTH_EXCEEDED:
        param = prompt
    message = error.message
    if guide is not None and GRAMMAR_REFUSED.match(message):
        param, message = guide, f"{guide}: {message}"
    return ApiError(STATUS.get(error.code, 500), message, code=error.code, param=param)
