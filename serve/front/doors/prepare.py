"""From a request's body to the call that answers it, at every door.

All the work that grows with a body is here, so that it can be done in another process.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from nemotrt.serve.front.doors.messages import conversation as messages
from nemotrt.serve.front.doors.messages.call import MessageCall
from nemotrt.serve.front.doors.responses import conversation as responses
from nemotrt.serve.front.doors.responses.call import ResponseCall
from nemotrt.serve.front.doors.tokens import answered, detokenize, tokenize
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.chat_endpoint import ChatCall
from nemotrt.serve.front.openai.prepare import (
    CallSettings,
    Prepared,
    chat_call,
    pads,
    prepare_chat,
    prepare_completion,
    read_body,
)
from nemotrt.serve.front.schema.anthropic import CountRequest, MessagesRequest
from nemotrt.serve.front.schema.requests import ChatRequest
from nemotrt.serve.front.schema.responses import InputItem, ResponsesRequest
from nemotrt.serve.requests.endpoints import Endpoint

ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[InputItem])


class NeedsEarlierError(Exception):
    """A body goes on from an earlier response, which has to be given."""

    def __init__(self, response_id: str) -> None:
        """Keep which."""
        super().__init__(response_id)
        self.response_id = response_id


def prepare(
    endpoint: Endpoint, raw: bytes, settings: CallSettings, earlier: bytes | None = None
) -> Prepared:
    """Return the call for a body; `earlier` are the items of the response that it goes on from.

    Raises:
        ApiError: it is no JSON, a field is unknown, wrong or beyond a limit, there is no such
            model, or the chat template refuses the messages.
        NeedsEarlierError: it goes on from a response, whose items were not given.
    """
    if endpoint in (Endpoint.RESPONSES, Endpoint.RESPONSE_TOKENS):
        is_count = endpoint is Endpoint.RESPONSE_TOKENS
        return _response(raw, settings, earlier, is_count=is_count)
    return PREPARE[endpoint](raw, settings)


def _response(
    raw: bytes, settings: CallSettings, earlier: bytes | None, *, is_count: bool
) -> Prepared:
    body = read_body(ResponsesRequest, raw)
    if body.previous_response_id is not None and earlier is None:
        raise NeedsEarlierError(body.previous_response_id)
    items = [*ITEMS.validate_json(earlier or b"[]"), *body.items]
    call = _chat(responses.chat_body(body, items), settings, responses.NAMES)
    if is_count:
        return answered({"object": "response.input_tokens", **_num_input(call, settings)})
    kept = ITEMS.dump_python(items, exclude_none=True)
    return Prepared(ResponseCall(body, call, kept), body.stream, pads(body))


def _message(raw: bytes, settings: CallSettings) -> Prepared:
    body = read_body(MessagesRequest, raw)
    chat = _anthropic_chat(body, settings)
    return Prepared(MessageCall(chat, body.stop_sequences or ()), body.stream)


def _count(raw: bytes, settings: CallSettings) -> Prepared:
    chat = _anthropic_chat(read_body(CountRequest, raw), settings)
    return answered(_num_input(chat, settings))


def _count_chat(raw: bytes, settings: CallSettings) -> Prepared:
    chat = chat_call(read_body(ChatRequest, raw), settings)
    return answered(_num_input(chat, settings))


def _num_input(chat: ChatCall, settings: CallSettings) -> dict[str, int]:
    """Return how many tokens a chat's prompt has, as every door names it."""
    prompt = chat.inputs[0]
    ids = prompt.get("input_ids")  # of one that was cut to truncate_prompt_tokens
    if ids is None:
        ids = settings.files.encode(prompt["text_input"], add_special_tokens=False)
    return {"input_tokens": len(ids)}


def _anthropic_chat(body: CountRequest, settings: CallSettings) -> ChatCall:
    if body.thread is not None:  # Anthropic's client knows the code, and sends the whole then
        text = "thread is not supported: none is kept; send the whole conversation."
        raise ApiError(400, text, code="thread_unsupported_request", param="thread")
    return _chat(messages.chat_body(body, settings.files.template), settings, messages.NAMES)


def _chat(told: dict[str, Any], settings: CallSettings, names: Mapping[str, str]) -> ChatCall:
    """Return the call for the chat that a body was made into; errors have the body's own names."""
    try:
        return chat_call(read_body(ChatRequest, told), settings)
    except ApiError as error:
        raise error.renamed(names) from error


PREPARE: dict[Endpoint, Callable[[bytes, CallSettings], Prepared]] = {
    Endpoint.CHAT: prepare_chat,
    Endpoint.CHAT_TOKENS: _count_chat,
    Endpoint.COMPLETIONS: prepare_completion,
    Endpoint.MESSAGES: _message,
    Endpoint.COUNT_TOKENS: _count,
    Endpoint.TOKENIZE: tokenize,
    Endpoint.DETOKENIZE: detokenize,
}
