"""POST /tokenize and /detokenize, and whatever else is answered without the engine."""

from collections.abc import AsyncIterator
from typing import Any

from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.prepare import (
    CallSettings,
    Prepared,
    chat_call,
    check_model,
    read_body,
)
from nemotrt.serve.front.schema.requests import ChatRequest
from nemotrt.serve.front.schema.tokens import DetokenizeRequest, TokenizeChat, TokenizeRequest
from nemotrt.serve.front.upstream.upstream import Fields, Upstream
from nemotrt.serve.requests.limits import MAX_PROMPT_IDS

Json = dict[str, Any]


class Answered:
    """A call whose answer is there already."""

    stream_end = b""

    def __init__(self, answer: Json) -> None:
        """Keep the answer."""
        self.inputs: list[Fields] = []
        self._answer = answer

    def counts(self) -> Json:
        """Return nothing: no engine was asked."""
        return {}

    async def chunks(self, upstream: Upstream) -> AsyncIterator[list[Json]]:
        """Yield the answer in one piece."""
        yield [self._answer]

    async def completion(self, upstream: Upstream) -> Json:
        """Return the answer."""
        return self._answer


def answered(answer: Json) -> Prepared:
    """Return the call for an answer."""
    return Prepared(Answered(answer), is_stream=False)


def tokenize(raw: bytes, settings: CallSettings) -> Prepared:
    """Return a text's tokens, or those of a chat's prompt.

    Raises:
        ApiError: the body is refused, or the text is far longer than the engine holds.
    """
    body, files = read_body(TokenizeRequest, raw).root, settings.files
    if isinstance(body, TokenizeChat):
        told = body.model_dump(exclude_none=True, exclude={"return_token_strs"})
        chat = read_body(ChatRequest, told)
        text = chat_call(chat, settings).inputs[0]["text_input"]
        ids = files.encode(text, add_special_tokens=False)
    else:
        if body.model is not None:
            check_model(body.model, settings)
        ids = files.encode(body.prompt, add_special_tokens=body.add_special_tokens)
    answer: Json = {
        "count": len(ids),
        "max_model_len": files.limits.max_seq_len,
        "tokens": ids,
        "token_strs": None,
    }
    if body.return_token_strs:
        answer["token_strs"] = [files.token_name(token) for token in ids]
    return answered(answer)


def detokenize(raw: bytes, settings: CallSettings) -> Prepared:
    """Return the text of tokens, special ones included.

    Raises:
        ApiError: the body is refused, or no vocabulary has a token.
    """
    body, files = read_body(DetokenizeRequest, raw), settings.files
    if body.model is not None:
        check_model(body.model, settings)
    if files.tokenizer is None:
        raise ApiError(400, "the engine has no tokenizer.")
    most = max(MAX_PROMPT_IDS, files.limits.max_seq_len)
    if len(body.tokens) > most:
        text = f"tokens has {len(body.tokens)} entries; the limit is {most}."
        raise ApiError(400, text, param="tokens")
    for token in body.tokens:
        if files.token_bytes(token) is None:
            raise ApiError(400, f"tokens: there is no token {token}.", param="tokens")
    return answered({"prompt": files.tokenizer.decode(body.tokens, skip_special_tokens=False)})
