"""The bodies of /tokenize and /detokenize, as vLLM has them."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, RootModel, Tag

from nemotrt.serve.front.schema.messages import Message, Strict, Text
from nemotrt.serve.front.schema.requests import Ids, Tool
from nemotrt.serve.requests.limits import MAX_MESSAGES, MAX_TOOLS


class TokenizeText(Strict):
    """A text."""

    model: str | None = None
    prompt: Text
    add_special_tokens: bool = True
    return_token_strs: bool = False


class TokenizeChat(Strict):
    """A chat; what stands around its messages is the chat template's."""

    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool = False


def _kind(body: Any) -> str:
    return "(chat)" if isinstance(body, dict) and "messages" in body else "(text)"


class TokenizeRequest(
    RootModel[
        Annotated[
            Annotated[TokenizeText, Tag("(text)")] | Annotated[TokenizeChat, Tag("(chat)")],
            Discriminator(_kind),
        ]
    ]
):
    """POST /tokenize."""


class DetokenizeRequest(Strict):
    """POST /detokenize."""

    model: str | None = None
    tokens: Ids | Annotated[list[int], Field(max_length=0)]
