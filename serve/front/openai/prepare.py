"""From a body of chat or completions to the call that answers it: checked, its prompt rendered."""

import codecs
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pydantic

from nemotrt.files.model_file import place
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.body_limits import check_limits
from nemotrt.serve.front.openai.chat_endpoint import ChatCall
from nemotrt.serve.front.openai.completion_endpoint import CompletionCall
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.guided import offer_allowed
from nemotrt.serve.front.schema.neutral import MESSAGE, Table
from nemotrt.serve.front.schema.requests import (
    ChatRequest,
    CompletionRequest,
    Sampling,
)
from nemotrt.serve.front.schema.responses import ResponsesRequest
from nemotrt.serve.front.tools.functions import NAMES, offer_functions
from nemotrt.serve.front.upstream.upstream import Fields, Upstream
from nemotrt.serve.grammar.json_schema import strict_json

Body = TypeVar("Body", bound=pydantic.BaseModel)


class Call(Protocol):
    """A request on its way through, to be answered whole or streamed."""

    inputs: list[Fields]
    stream_end: bytes  # what a stream ends with

    def counts(self) -> dict[str, Any]:
        """Return what a log says of the answer so far: its tokens and how it ended."""

    def chunks(self, upstream: Upstream) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the chunks of a streamed answer; ApiError for a refusal or a failure."""

    async def completion(self, upstream: Upstream) -> dict[str, Any]:
        """Return the whole answer; ApiError for a refusal or a failure."""


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What a call is made with, beside the body."""

    model_names: tuple[str, ...]
    files: EngineFiles
    separate_reasoning: bool
    adapters: tuple[str, ...] = ()

    def adapter_of(self, model: str) -> str | None:
        """Return the adapter that a model's name means: its own, or BASE:NAME; None of a base's.

        Raises:
            ApiError: there is no such model.
        """
        if model in self.model_names:
            return None
        base, colon, name = model.rpartition(":")
        if name in self.adapters and (not colon or base in self.model_names):
            return name
        raise unknown_model(model, (*self.model_names, *self.adapters))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call, whether its answer is streamed, and whether the stream is padded."""

    call: Call
    is_stream: bool
    is_padded: bool = False


def prepare_chat(raw: bytes, settings: CallSettings) -> Prepared:
    """Return the call for a chat's body.

    Raises:
        ApiError: the chat template refuses the messages, or as in `read_body` and `check_body`.
    """
    chat = read_body(ChatRequest, raw)
    is_padded = pads(chat)
    return Prepared(chat_call(chat, settings), chat.stream, is_padded)


def chat_call(chat: ChatRequest, settings: CallSettings) -> ChatCall:
    """Return the call for a chat.

    Raises:
        ApiError: the chat template refuses the messages, two tools have one name, or as in
            `check_body`.
    """
    check_body(chat, settings)
    _check_tools(chat)
    offer_functions(chat)
    offer_allowed(chat)
    try:
        return ChatCall(chat, settings.files, separate_reasoning=settings.separate_reasoning)
    except ApiError as error:
        if not chat.functions:
            raise
        raise error.renamed(NAMES) from error


def _check_tools(chat: ChatRequest) -> None:
    """Raise ApiError for two tools of one name: a call could mean either."""
    functions: dict[str, Any] = {}
    for i, tool in enumerate(chat.tools or ()):
        name, where = tool.function.name, f"tools.{i}.function.name"
        if functions.setdefault(name, tool.function) != tool.function:
            text = f"{where}: {name!r} is another tool's name already; give each its own."
            raise ApiError(400, text, param=where)


def prepare_completion(raw: bytes, settings: CallSettings) -> Prepared:
    """Return the call for a body of completions.

    Raises:
        ApiError: as in `read_body` and `check_body`.
    """
    completion = read_body(CompletionRequest, raw)
    is_padded = pads(completion)
    check_body(completion, settings)
    return Prepared(CompletionCall(completion, settings.files), completion.stream, is_padded)


def read_body(kind: type[Body], raw: bytes | dict[str, Any]) -> Body:
    """Return the body of a request, or the one that another body was made into.

    Raises:
        ApiError: it is no JSON, or a field is unknown or wrong.
    """
    try:
        if not isinstance(raw, bytes):
            return kind.model_validate(raw)
        raw = raw.removeprefix(codecs.BOM_UTF8)
        body = kind.model_validate_json(raw)
    except pydantic.ValidationError as error:
        raise _invalid(error, kind) from None
    _check_json(raw)
    return body


def _check_json(raw: bytes) -> None:
    """Raise ApiError where a number is none of JSON's, or a name is given twice in an object.

    Pydantic takes such numbers in a free object, and the last of two values.
    """
    try:
        strict_json(raw)
    except ValueError as error:
        raise ApiError(400, f"Invalid JSON: {error}.") from None


def check_body(body: Sampling, settings: CallSettings) -> None:
    """Name the model of a body that names none.

    Raises:
        ApiError: there is no such model, or something is beyond a limit.
    """
    if body.model is None:
        body.model = settings.model_names[0]
    body.lora_name = settings.adapter_of(body.model)
    check_limits(body, settings.files.limits)


def check_model(name: str, settings: CallSettings) -> None:
    """Raise ApiError where the model of that name is not the one served."""
    settings.adapter_of(name)


def pads(body: Sampling | ResponsesRequest) -> bool:
    """Return whether the chunks of the answer are to be padded.

    Raises:
        ApiError: something is asked of a stream, and the answer is none.
    """
    options = body.stream_options
    if options is None:
        return False
    if options != type(options)() and not body.stream:
        raise ApiError(400, "stream_options needs stream.", param="stream_options")
    return options.include_obfuscation


def unknown_model(name: str, known: Sequence[str]) -> ApiError:
    """Return the error for a model that is not the one served."""
    text = f"there is no model {name!r}; known: {', '.join(known)}."
    return ApiError(404, text, param="model", code="model_not_found")


def _invalid(error: pydantic.ValidationError, kind: type[pydantic.BaseModel]) -> ApiError:
    """Return the error for a body that does not fit its schema: the first fault, by its field."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = place(first)
    if first["type"] == "extra_forbidden":
        *parents, name = first["loc"]
        own: Table = getattr(kind, "neutral", {})
        table = MESSAGE if parents[:1] == ["messages"] else {} if parents else own
        known = table.get(str(name))
        text = f"{where} is not supported; leave it out."
        return ApiError(400, known.refusal(where) if known else text, param=where)
    message = first["msg"] if not where else f"{where}: {first['msg']}."
    return ApiError(400, message, param=where or None)
