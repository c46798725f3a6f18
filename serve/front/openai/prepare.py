"""From a request's body to the call that answers it: checked, laid out, its prompt rendered.

All the work that grows with a body is here, so that it can be done in another process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import pydantic

from nemotrt.files.model_file import place
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.body_limits import check_limits
from nemotrt.serve.front.openai.chat_endpoint import ChatCall
from nemotrt.serve.front.openai.completion_endpoint import CompletionCall
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.schema.neutral import MESSAGE
from nemotrt.serve.front.schema.requests import (
    ChatRequest,
    CompletionRequest,
    Sampling,
    StreamOptions,
)

Body = TypeVar("Body", bound=Sampling)


class Endpoint(StrEnum):
    """What a body was sent to."""

    CHAT = "chat"
    COMPLETIONS = "completions"


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What a call is made with, beside the body."""

    model_names: tuple[str, ...]
    files: EngineFiles
    separate_reasoning: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call, and whether its answer is streamed."""

    call: ChatCall | CompletionCall
    is_stream: bool


def prepare(endpoint: Endpoint, raw: bytes, settings: CallSettings) -> Prepared:
    """Return the call for a body.

    Raises:
        ApiError: it is no JSON, a field is unknown, wrong or beyond a limit, there is no such
            model, or the chat template refuses the messages.
    """
    files = settings.files
    if endpoint is Endpoint.CHAT:
        chat = _read(ChatRequest, raw, settings)
        separate = settings.separate_reasoning
        return Prepared(ChatCall(chat, files, separate_reasoning=separate), chat.stream)
    completion = _read(CompletionRequest, raw, settings)
    return Prepared(CompletionCall(completion, files), completion.stream)


def _read(kind: type[Body], raw: bytes, settings: CallSettings) -> Body:
    """Return the checked body."""
    try:
        body = kind.model_validate_json(raw)
    except pydantic.ValidationError as error:
        raise _invalid(error, kind) from None
    if body.model not in settings.model_names:
        raise unknown_model(body.model, settings.model_names)
    check_limits(body, settings.files.limits)
    if body.stream_options not in (None, StreamOptions()) and not body.stream:
        raise ApiError(400, "stream_options needs stream.", param="stream_options")
    return body


def unknown_model(name: str, known: Sequence[str]) -> ApiError:
    """Return the error for a model that is not the one served."""
    text = f"there is no model {name!r}; known: {', '.join(known)}."
    return ApiError(404, text, param="model", code="model_not_found")


def _invalid(error: pydantic.ValidationError, kind: type[Sampling]) -> ApiError:
    """Return the error for a body that does not fit its schema: the first fault, by its field."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = place(first)
    if first["type"] == "extra_forbidden":
        *parents, name = first["loc"]
        table = MESSAGE if parents[:1] == ["messages"] else {} if parents else kind.neutral
        known = table.get(str(name))
        text = f"{where} is not supported; leave it out."
        return ApiError(400, known.refusal(where) if known else text, param=where)
    message = first["msg"] if not where else f"{where}: {first['msg']}."
    return ApiError(400, message, param=where or None)
